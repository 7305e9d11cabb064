// What the pages of the clouds say: jobs, keys, prices.

import { sayer } from '../lib/language.js'
import { en } from './texts_en.js'
import { zh } from './texts_zh.js'

export const say = sayer({ en, zh })
