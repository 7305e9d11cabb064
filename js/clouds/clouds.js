// Which nodes are clouds, and their price lists, as the server has them.

import { get } from '../lib/server.js'
import { value } from '../nodes/graph.js'

let clouds = []

export async function loadClouds() {
  if (!clouds.length) clouds = await get('/prices')
}

export const cloudOf = node => clouds.find(cloud => cloud.node === node.type)

// The cloud that a node asks, also one with a choice of clouds; undefined if it asks none, or that is linked.
export function providerOf(node) {
  const own = cloudOf(node)
  if (own) return own.provider
  if (!node.type?.startsWith('WanFLF2V')) return undefined
  return value(node, 'provider')
}

// US dollars of a clip with such values, `null` if the list does not have it, undefined if a value it needs is.
export function dollars(prices, valueOf) {
  for (const row of prices.rows) {
    const values = Object.entries(row.when).map(([name, allowed]) => [valueOf(name), allowed])
    if (values.some(([value]) => value === undefined)) return undefined
    if (values.every(([value, allowed]) => allowed.includes(value))) return row.dollars
  }
  return null
}
