// What the server gave of a run of a node.

import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'

// Call `show` with what a node's `ui` holds at `key`, now if it has run before and whenever it runs.
export function onResult(node, key, show) {
  const before = node.onExecuted
  node.onExecuted = function (output, ...more) {
    const result = before?.call(this, output, ...more)
    if (output?.[key]) show(output[key])
    return result
  }
  const kept = () => app.nodeOutputs?.[placeOf(node)]?.[key]
  setTimeout(() => kept() && show(kept())) // the node gets its id, and what it showed, after it was made
}

// The name of a node among results: of one in a subgraph with that in front.
const placeOf = node => (node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : node.id)

export function address({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
}
