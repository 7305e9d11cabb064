// One job of the list: what it is, how it stands, and what can be done with it.

import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'
import { button, element } from '../lib/element.js'
import { address, get, post } from '../lib/server.js'
import { askForKeys } from './key_dialog.js'
import { lacksKey, refresh } from './key_states.js'
import { say } from './texts.js'

const MINUTE = 60
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const RESULTS = 'wan_flf2v' // below the output folder

// An li; its `age()` brings "3 min ago" up to date. `changed` is called after something was asked of the server.
export function jobItem(job, changed) {
  const age = element('time', { title: new Date(job.at * 1000).toLocaleString() })
  age.dateTime = new Date(job.at * 1000).toISOString()
  const prompt = element('div', { className: 'prompt', textContent: job.prompt || say(job.clip ? 'noPrompt' : 'foreign'), title: job.prompt })
  const facts = element('div', { className: 'small' }, `${job.label} · `, age, ...factsOf(job).map(fact => ` · ${fact}`))
  const said = job.problem || (job.state !== 'fetched' && job.said)
  const body = element('div', {}, element('div', { className: 'row' }, mark(job)), prompt, facts)
  if (said) body.append(element('div', { className: 'small warn', textContent: said }))
  const item = element('li', {}, picture(job), body)
  body.append(element('div', { className: 'row' }, ...actions(job, item, changed)))
  item.age = () => (age.textContent = ageOf(job.at))
  return item
}

function mark(job) {
  const kind = job.file ? 'here' : job.uncollected || job.deleted ? 'open' : ''
  const text = job.stage ? say('collecting', job) : say(job.deleted ? 'deleted' : `state_${job.state}`)
  return element('span', { className: `mark ${kind}`, textContent: text, role: job.stage ? 'status' : 'note' })
}

function picture(job) {
  if (!job.picture) return element('div', { className: 'blank' })
  return element('img', { src: address('/jobs/picture', { name: job.name }), alt: say('firstImage'), loading: 'lazy' })
}

function factsOf(job) {
  const price = job.quoted === null ? job.listed : job.quoted
  const money = say(job.quoted === null ? 'listed' : 'quoted', { dollars: price?.toFixed(2) })
  const [width, height, seconds] = job.clip ?? []
  return [
    price === null ? say('noPrice') : money,
    ...(job.clip ? [say('size', { width, height, seconds })] : []),
    ...(job.seed === null ? [] : [say('seed', job)]),
    ...(job.take > 1 ? [say('take', job)] : []),
  ]
}

function actions(job, item, changed) {
  const id = job.id || job.name
  const found = []
  const add = (name, does, press) => {
    const made = button(say(name), say(does, { id }), press)
    made.dataset.does = name
    found.push(made)
  }
  if (job.file) add('open', 'openLong', () => play(job, item))
  if (job.collectable) {
    add('collect', 'collectLong', () => job.stage || tried(() => collect(job, changed)))
    if (job.stage) found.at(-1).ariaDisabled = 'true' // and not disabled, which takes the focus away
  }
  if (job.graph) add('load', 'loadLong', () => tried(() => load(job)))
  if (job.id) add('copy', 'copyLong', () => tried(() => copy(job.id)))
  return found
}

// Asks for the key first, where the cloud has none.
async function collect(job, changed) {
  await refresh()
  if (lacksKey(job.provider)) await askForKeys([job.provider], false)
  if (lacksKey(job.provider)) return
  await post('/jobs/collect', { name: job.name })
  await changed()
}

// The clip below its item; once more closes it.
function play(job, item) {
  const open = item.querySelector('video')
  if (open) return open.remove()
  const parts = job.file.split('/')
  const asked = { filename: parts.pop(), subfolder: [RESULTS, ...parts].join('/'), type: 'output' }
  const player = element('video', { src: api.apiURL(`/view?${new URLSearchParams(asked)}`), controls: true, loop: true, autoplay: true, muted: true })
  player.setAttribute('aria-label', say('openLong', { id: job.id }))
  item.append(player)
  player.focus()
}

// In a tab of its own, so that nothing that stands in the editor is lost.
async function load(job) {
  const graph = await get('/jobs/graph', { name: job.name })
  const name = `wan_flf2v ${job.id || job.name.slice(0, 8)}`
  if (Array.isArray(graph.nodes)) await app.loadGraphData(graph, true, true, name)
  else await app.loadApiJson(graph, name)
}

async function copy(id) {
  const copied = await navigator.clipboard?.writeText(id).then(() => true, () => false)
  if (!copied) copyOldWay(id)
  app.extensionManager.toast.add({ severity: 'success', summary: say('copied', { id }), life: 2000 })
}

// Browsers give no clipboard to pages that came over plain http from another machine, or that may not use it.
function copyOldWay(text) {
  const at = document.activeElement
  const field = element('textarea', { value: text, style: 'position:fixed;opacity:0' })
  document.body.append(field)
  field.select()
  document.execCommand('copy')
  field.remove()
  at?.focus()
}

async function tried(work) {
  try {
    await work()
  } catch (error) {
    app.extensionManager.toast.add({ severity: 'error', summary: error.message, life: 8000 })
  }
}

function ageOf(at) {
  const seconds = Date.now() / 1000 - at
  if (seconds < MINUTE) return say('now')
  if (seconds < HOUR) return say('minutes', { count: Math.floor(seconds / MINUTE) })
  if (seconds < DAY) return say('hours', { count: Math.floor(seconds / HOUR) })
  return say('days', { count: Math.floor(seconds / DAY) })
}
