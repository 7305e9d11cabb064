// The list of jobs: a page of them at a time, so that thousands are as quick as ten.

import { api } from '../../../scripts/api.js'
import { button, element } from '../lib/element.js'
import { get } from '../lib/server.js'
import { jobItem } from './job.js'
import { say } from './texts.js'

const COUNT = 20 // jobs of a page
const SOON = 1500 // ms between looks while one is being collected
const LATER = 15000 // ms, else
const ENDS = ['execution_success', 'execution_error', 'execution_interrupted']

export class Panel {
  start = 0
  newest = 0 // look, of several that are under way
  items = new Map() // name of a job to its item, which stays while nothing of it changes

  constructor(place) {
    this.told = element('p', { role: 'status', className: 'small' })
    this.notes = element('div', {})
    this.list = element('ul', { ariaLabel: say('jobsLong') })
    this.pages = element('nav', { className: 'row', ariaLabel: say('jobs') })
    const head = element('div', { className: 'row' }, element('h2', { textContent: say('jobs') }), button(say('refresh'), say('refresh'), () => this.show()))
    const notice = element('p', { className: 'small', textContent: say('noCancel') })
    this.box = element('section', { className: 'wan-clouds panel', ariaLabel: say('jobsLong') }, head, this.told, this.notes, this.list, this.pages, notice)
    place.replaceChildren(this.box)
    // A tab in the background asks nothing until it is looked at.
    this.look = () => document.hidden || this.show()
    for (const end of ENDS) api.addEventListener(end, this.look)
    document.addEventListener('visibilitychange', this.look)
    this.show()
  }

  close() {
    clearTimeout(this.timer)
    this.closed = true
    for (const end of ENDS) api.removeEventListener(end, this.look)
    document.removeEventListener('visibilitychange', this.look)
    this.box.remove()
  }

  async show() {
    clearTimeout(this.timer)
    const number = ++this.newest
    const stale = () => this.closed || number !== this.newest // of another page, or older than what is shown
    let again = LATER
    try {
      const found = await get('/jobs', { start: this.start, count: COUNT })
      if (stale()) return
      if (this.start >= found.total && this.start > 0) {
        this.start = 0 // forgotten meanwhile
        return this.show()
      }
      this.draw(found)
      if (found.jobs.some(job => job.stage)) again = SOON
    } catch (error) {
      if (stale()) return
      this.told.textContent = say('unreached', { problem: error.message })
      this.told.className = 'warn'
    }
    this.timer = setTimeout(this.look, again)
  }

  draw({ jobs, total, uncollected, unreadable }) {
    this.told.className = 'small'
    const counts = say(uncollected ? 'summaryOpen' : 'summary', { total, open: uncollected })
    this.told.textContent = total ? counts : say('none')
    const note = element('p', { className: 'warn small', textContent: say('unreadable', { count: unreadable }) })
    this.notes.replaceChildren(...(unreadable ? [note] : []))
    const kept = new Map()
    const shown = jobs.map(job => {
      const mark = JSON.stringify(job)
      const before = this.items.get(job.name)
      const item = before?.mark === mark ? before : { mark, element: jobItem(job, () => this.show()) }
      if (before && before !== item) refocus(before.element, item.element)
      kept.set(job.name, item)
      return item
    })
    this.items = kept
    for (const item of shown) item.element.age()
    const wanted = shown.map(item => item.element)
    if (wanted.length !== this.list.children.length || wanted.some((each, at) => each !== this.list.children[at])) {
      const at = document.activeElement
      this.list.replaceChildren(...wanted)
      if (this.list.contains(at)) at.focus()
    }
    for (const item of shown) item.element.focusLater?.()
    this.drawPages(total)
  }

  drawPages(total) {
    const turn = step => () => {
      this.start = Math.max(0, this.start + step)
      this.box.scrollTop = 0
      this.show()
    }
    const before = button(say('before'), say('before'), turn(-COUNT))
    const after = button(say('after'), say('after'), turn(COUNT))
    before.disabled = this.start === 0
    after.disabled = this.start + COUNT >= total
    const to = Math.min(this.start + COUNT, total)
    const where = element('span', { className: 'small', textContent: say('page', { from: this.start + 1, to, total }) })
    const focused = [...this.pages.querySelectorAll('button')].indexOf(document.activeElement)
    this.pages.replaceChildren(...(total > COUNT ? [before, where, after] : []))
    if (focused >= 0) (this.pages.querySelectorAll('button:enabled')[focused] ?? this.pages.querySelector('button:enabled'))?.focus()
  }
}

// The same button of an item that is drawn anew has the focus, if one had it.
function refocus(before, after) {
  const name = before.contains(document.activeElement) ? document.activeElement.dataset.does : undefined
  if (name) after.focusLater = () => {
    after.querySelector(`[data-does=${name}]`)?.focus()
    after.focusLater = undefined
  }
}
