// Whether each cloud has a key, as the server says it; nothing here ever holds one.

import { get, post } from '../lib/server.js'

const heard = new Set()
let known = []

export const stateOf = provider => known.find(row => row.provider === provider)
export const states = () => known
export const listen = changed => heard.add(changed)

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
