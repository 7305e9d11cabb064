// Whether each cloud has a key, as the server says it; nothing here ever holds one.

import { get, post } from '../lib/server.js'

const heard = new Set()
let known = []

export const stateOf = provider => known.find(row => row.provider === provider)
export const states = () => known
export const lacksKey = provider => (stateOf(provider)?.state ?? 'set') !== 'set' // not, where nothing is known

// Gives the function that ends it.
export function listen(changed) {
  heard.add(changed)
  return () => heard.delete(changed)
}

export async function refresh() {
  tell(await get('/keys'))
}

// Hand a key to the server. Throws what it refuses.
export async function store(provider, key) {
  const row = await post('/keys', { provider, key })
  tell(known.map(each => (each.provider === provider ? row : each)))
}

function tell(rows) {
  known = rows
  for (const changed of heard) changed()
}
