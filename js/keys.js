// Keys of the clouds: their state and a field in the settings, and a word before a run that would fail without one.

import { app } from '../../scripts/app.js'
import { keyForm } from './clouds/key_form.js'
import { CATEGORY, askForKeys } from './clouds/key_dialog.js'
import { lacksKey, refresh } from './clouds/key_states.js'
import { loadClouds, providerOf } from './clouds/clouds.js'
import { addStyle } from './clouds/style.js'
import { say } from './clouds/texts.js'
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
    const missing = lacking(app.rootGraph ?? app.graph)
    if (missing.length) {
      await refresh().catch(() => {})
      const still = missing.filter(lacksKey)
      if (still.length && !(await askForKeys(still, true))) return false
    }
    return queue.apply(this, given)
  }
}

function lacking(graph) {
  const found = new Set()
  for (const node of graph?._nodes ?? []) {
    if (ASLEEP.includes(node.mode)) continue
    if (node.subgraph) for (const provider of lacking(node.subgraph)) found.add(provider)
    const provider = providerOf(node)
    if (provider && lacksKey(provider)) found.add(provider)
  }
  return [...found]
}
