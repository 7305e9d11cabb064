// Tell a node when something that it shows has changed, anywhere in the graph: links, widgets of others, undo.
// One slow look at a short string a node serves all of these, and holds back a slider that is being dragged.

import { graphs } from './graphs.js'

const EVERY = 500 // ms
const ADDED = 20 // looks in which a new node comes into a graph, or never does: copying makes some that do not
const watched = new Set() // of {node, key, changed, last, seen, looks}

export function watch(node, key, changed) {
  const row = { node, key, changed, last: null, seen: null, looks: 0 }
  watched.add(row)
  const added = node.onAdded
  node.onAdded = function (...given) {
    watched.add(row)
    return added?.apply(this, given)
  }
  const before = node.onRemoved
  node.onRemoved = function (...given) {
    watched.delete(row)
    return before?.apply(this, given)
  }
}

// Look at all of them anew, such as when a run has ended.
export function again() {
  for (const row of watched) row.last = null
}

function look() {
  if (document.hidden) return
  const here = new Set(graphs())
  for (const row of watched) {
    if (!isThere(row, here)) continue
    const now = row.key()
    if (now !== row.last && now === row.seen) {
      row.last = now
      row.changed()
    }
    row.seen = now
  }
}

// Whether a node is in a graph of `here`. Nobody tells nodes in a subgraph when that goes, as each undo has it do.
function isThere(row, here) {
  const { graph } = row.node
  if (graph && here.has(graph)) return true
  if (graph || ++row.looks > ADDED) watched.delete(row)
  return false
}

setInterval(look, EVERY)
