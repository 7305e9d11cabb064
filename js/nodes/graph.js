// What stands in the graph around a node: widgets, what feeds an input, what an output feeds.

import { app } from '../../../scripts/app.js'

const FAR = 20 // nodes in a row
const [MUTED, BYPASSED] = [2, 4] // modes of a node
export const ASLEEP = [MUTED, BYPASSED]

export const widget = (node, name) => node?.widgets?.find(each => each.name === name)

// The value of a widget; undefined where another node gives it, which is known only when that runs.
export function value(node, name) {
  const input = node?.inputs?.find(each => each.name === name)
  return input?.link == null ? widget(node, name)?.value : undefined
}

export function set(node, name, to) {
  const found = widget(node, name)
  if (!found || found.value === to) return
  found.value = to
  found.callback?.(to, undefined, node)
  node.setDirtyCanvas?.(true, true)
}

// What is done by a button of ours as one step for undo: the page looks for changes before a button gets its press.
export function undoable(change) {
  app.canvas?.emitBeforeChange?.()
  try {
    change()
  } finally {
    app.canvas?.emitAfterChange?.()
  }
}

// The node that gives an input, or null.
export function source(node, name) {
  const at = node?.inputs?.findIndex(each => each.name === name) ?? -1
  return at < 0 ? null : above(node, at)
}

// What really gives an input: behind reroutes and nodes that are bypassed; none behind one that is muted.
function above(node, at) {
  const { type } = node.inputs[at]
  for (let step = 0; step < FAR; step++) {
    node = node.inputs[at]?.link == null ? null : node.getInputNode(at)
    if (!node || node.mode === MUTED) return null
    if (node.type === 'Reroute') at = 0
    else if (node.mode === BYPASSED) at = node.inputs.findIndex(each => each.type === type)
    else return node
    if (at < 0) return null
  }
  return null
}

// The nodes that read an output.
export function readers(node, index = 0) {
  return (node?.getOutputNodes?.(index) ?? []).flatMap(each => (each.type === 'Reroute' ? readers(each) : [each]))
}

// From `node` upwards by the first of `names` that is connected, the first node that `wanted` takes.
export function upwards(node, names, wanted) {
  for (let step = 0; node && step < FAR; step++) {
    if (wanted(node)) return node
    node = names.map(name => source(node, name)).find(Boolean)
  }
  return null
}
