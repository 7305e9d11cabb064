// What stands in the graph around a node: widgets, what feeds an input, what an output feeds.

const FAR = 20 // nodes in a row

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

// The node that gives an input, or null.
export function source(node, name) {
  const at = node?.inputs?.findIndex(each => each.name === name) ?? -1
  return at < 0 || node.inputs[at].link == null ? null : throughReroutes(node.getInputNode(at))
}

function throughReroutes(node) {
  for (let step = 0; node?.type === 'Reroute' && step < FAR; step++) node = node.getInputNode(0)
  return node ?? null
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
