// Keys of the clouds: their state and a field in the settings, and a word before a run that would fail without one.

import { app } from '../../scripts/app.js'
import { keyForm } from './clouds/key_form.js'
import { CATEGORY, askForKeys } from './clouds/key_dialog.js'
import { lacksKey, refresh } from './clouds/key_states.js'
import { loadClouds, providerOf } from './clouds/clouds.js'
import { addStyle } from './clouds/style.js'
import { say } from './clouds/texts.js'
import { rootGraph } from './lib/graphs.js'
import { ASLEEP } from './nodes/graph.js'

app.registerExtension({
  name: 'WanFLF2V.keys',
  settings: [
    {
      id: 'WanFLF2V.Keys',
      name: 'API keys of the clouds',
      category: [CATEGORY, 'Clouds', 'Keys'],
      type: () => keyForm(), // draws its own field: the host stores nothing of it
      defaultValue: '',
    },
  ],
  async setup() {
    addStyle()
    await Promise.all([loadClouds(), refresh()]).catch(error => console.warn('Wan FLF2V:', error.message))
    sayBeforeQueueing()
    document.addEventListener('visibilitychange', () => document.hidden || refresh().catch(() => {})) // another tab's
  },
})

// The host has no hook that can hold a run back, so its own function is taken once and called from here.
function sayBeforeQueueing() {
  const queue = app.queuePrompt
  app.queuePrompt = async function (...given) {
    const root = rootGraph(), chosen = given[2]?.queueNodeIds ?? given[2]
    const missing = lacking(chosen?.length ? feeding(root, chosen) : (root?._nodes ?? []))
    if (missing.length) {
      await refresh().catch(() => {})
      const still = missing.filter(lacksKey)
      if (still.length && !(await askForKeys(still, true))) return false
    }
    return queue.apply(this, given)
  }
}

// Nodes of `graph` that a run of some outputs alone goes through. `ids` are of those; one in a subgraph has the id of the
// node with it in front.
function feeding(graph, ids) {
  const found = new Set(), left = ids.map(id => graph.getNodeById(String(id).split(':')[0]))
  while (left.length) {
    const node = left.pop()
    if (!node || found.has(node)) continue
    found.add(node)
    left.push(...(node.inputs ?? []).map((_, at) => node.getInputNode(at)))
  }
  return found
}

function lacking(nodes) {
  const found = new Set()
  for (const node of nodes) {
    if (ASLEEP.includes(node.mode)) continue
    if (node.subgraph) for (const provider of lacking(node.subgraph._nodes)) found.add(provider)
    const provider = providerOf(node)
    if (provider && lacksKey(provider)) found.add(provider)
  }
  return [...found]
}
