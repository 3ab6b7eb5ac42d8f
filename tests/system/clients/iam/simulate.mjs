// What IAM would say: reads {"policy", "requests": [{"action", "resource"}]} and prints the results, one a line.
import { readFileSync } from 'node:fs'
import { runSimulation } from '@cloud-copilot/iam-simulate'

const { policy, requests } = JSON.parse(readFileSync(0, 'utf8'))
for (const { action, resource } of requests) {
  const simulation = {
    request: {
      principal: 'arn:aws:iam::123456789012:role/agent',
      action,
      resource: { resource, accountId: '123456789012' },
      contextVariables: {},
    },
    identityPolicies: [{ name: 'learnt', policy }],
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  }
  const { errors, analysis, ...rest } = await runSimulation(simulation, {})
  console.log(JSON.stringify({ action, resource, result: analysis?.result ?? rest.overallResult ?? 'error', errors }))
}
