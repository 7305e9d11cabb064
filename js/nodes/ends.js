// The given images of a clip against its frames, with what was measured.

import { element } from '../lib/element.js'
import { place } from '../lib/place.js'
import { address, onResult } from './results.js'
import { say } from './say.js'
import { wipe } from './wipe.js'

const KEY = 'wan_flf2v_ends'
const WIDE = 340 // for two pairs beside each other

// `folded`: on nodes that are about something else.
export function attachEnds(node, folded) {
  const content = element('div', { hidden: true })
  const grow = place(node, KEY, content)
  onResult(node, KEY, clips => {
    const shown = clips.filter(clip => clip.given)
    content.hidden = !shown.length
    const views = shown.map((clip, at) => view(clip, grow, shown.length > 1 ? say('endsOf', { number: at + 1 }) : say('ends'), folded))
    content.replaceChildren(...views)
    if (!folded && node.size[0] < WIDE) node.setSize([WIDE, node.size[1]])
    grow()
  })
}

function view(clip, grow, title, folded) {
  const pairs = clip.pairs.map((pair, at) => figure(pair, clip.given[at], clip.frames, grow))
  const jump = clip.largest_jump
  const even = say('even', { jitter: number(clip.jitter, 2), jump: number(jump, 1), at: clip.largest_jump_at })
  const inside = [element('div', { className: 'wan-flf2v-pairs' }, ...pairs), element('div', { textContent: even })]
  if (!folded) return element('section', { ariaLabel: title }, ...inside)
  return element('details', { ontoggle: grow }, element('summary', { textContent: `${title}: ${brief(clip)}` }), ...inside)
}

function figure(pair, given, frames, grow) {
  const name = nameOf(pair.frame, frames)
  const { box, images } = wipe(address(pair.image), address(pair.shown), name)
  for (const image of images) image.onload = grow
  const caption = element('figcaption', {}, element('strong', { textContent: name }), ` ${match(given)}`)
  return element('figure', {}, box, caption)
}

function match(given) {
  if (given.psnr_db === null) return say('equal')
  return say('match', { psnr: number(given.psnr_db, 1), colour: number(given.delta_e76, 1) })
}

const brief = clip => clip.given.map(given => (given.psnr_db === null ? '=' : `${number(given.psnr_db, 1)} dB`)).join(', ')

const number = (value, digits) => (value == null ? '∞' : value.toFixed(digits))

function nameOf(frame, frames) {
  if (frame === 0) return say('first')
  return frame === frames - 1 ? say('last') : say('frame', { frame })
}
