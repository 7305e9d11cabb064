// The line of text on a node, which says how its run went: newer editors take it away as soon as a run ends.

import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'

const LINE = '$$node-text-preview' // the editor's own widget
const ENDS = ['execution_success', 'execution_error', 'execution_interrupted']
const lines = new Map() // a node to the message that brought its line

export function keepLines() {
  api.addEventListener('progress_text', ({ detail }) => {
    const node = app.canvas.graph?.getNodeById(String(detail.nodeId).split(':').at(-1))
    if (node?.type.startsWith('WanFLF2V')) lines.set(node, detail)
  })
  for (const end of ENDS) api.addEventListener(end, () => setTimeout(putBack)) // after the editor has heard of it
}

// By the message itself, which the editor shows as it did before; where the line still stands nothing is done.
function putBack() {
  for (const [node, { nodeId, text }] of lines) {
    if (node.graph?.getNodeById(node.id) !== node) lines.delete(node)
    else if (node.graph === app.canvas.graph && !node.widgets?.some(each => each.name === LINE)) {
      api.dispatchEvent(new CustomEvent('progress_text', { detail: { nodeId, text } }))
    }
  }
}
