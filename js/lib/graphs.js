// The graphs of this page: the one that is run, and those of its subgraphs.

import { app } from '../../../scripts/app.js'

export const rootGraph = () => app.rootGraph ?? app.graph

export const graphs = () => [rootGraph(), ...(rootGraph()?.subgraphs?.values() ?? [])]
