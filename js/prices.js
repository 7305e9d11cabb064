// On the cloud nodes: what this clip costs by the dated list, and a mark where no key is set.

import { app } from '../../scripts/app.js'
import { cloudOf, dollars, loadClouds, providerOf } from './clouds/clouds.js'
import { askForKeys } from './clouds/key_dialog.js'
import { stateOf } from './clouds/key_states.js'
import { addStyle } from './clouds/style.js'
import { say } from './clouds/texts.js'
import { button, element } from './lib/element.js'
import { watch } from './lib/watch.js'
import { place } from './lib/place.js'
import { value, widget } from './nodes/graph.js'

const WIDGET = 'wan_flf2v_price'
const ASKING = ['WanFLF2VFetchResult', 'WanFLF2VAccount'] // cost nothing, and need a key too

app.registerExtension({
  name: 'WanFLF2V.prices',
  async setup() {
    addStyle()
    await loadClouds().catch(() => {}) // keys.js says why
  },
  nodeCreated(node) {
    const type = node.comfyClass ?? node.type
    if (type?.startsWith('WanFLF2V') && (ASKING.includes(type) || hasSeconds(node))) attach(node)
  },
})

// Before the server has said which nodes are clouds, they are known by what only they ask for.
const hasSeconds = node => Boolean(widget(node, 'take') && widget(node, 'wait_minutes'))

function attach(node) {
  const text = element('span', { role: 'status' })
  const mark = element('span', { className: 'warn' })
  const set = button(say('setKey'), say('setKey'), () => askForKeys([providerOf(node)], false))
  const line = element('div', { className: 'wan-clouds line row' }, text, mark, set)
  const grow = place(node, WIDGET, line)
  grow()
  watch(node, () => JSON.stringify([priceText(node), keyText(node)]), () => {
    const problem = keyText(node)
    text.textContent = priceText(node)
    mark.textContent = problem
    set.hidden = !problem
    set.style.display = problem ? '' : 'none'
    const label = stateOf(providerOf(node))?.label
    if (label) set.title = set.ariaLabel = say('setKeyLong', { label })
    grow()
  })
}

function priceText(node) {
  const cloud = cloudOf(node)
  if (!cloud) return ''
  if (!cloud.prices) return say('priceUnpublished', { site: cloud.site.replace('https://', '') })
  const found = dollars(cloud.prices, name => value(node, name))
  if (found === undefined) return say('priceLinked')
  return say(found === null ? 'priceUnlisted' : 'price', { dollars: found?.toFixed(2), date: cloud.prices.date })
}

function keyText(node) {
  const state = stateOf(providerOf(node))?.state ?? 'set'
  return state === 'set' ? '' : say(state === 'missing' ? 'keyMark' : 'keyMarkBad')
}
