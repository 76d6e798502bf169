/** Every morning: makes a report in a sandbox that is gone afterwards. */

import { type Sandbox, getSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  REPORTS: { put(key: string, value: string): Promise<unknown> };
}

const REPORT = `
import datetime, json, platform
print(json.dumps({"made": datetime.datetime.now().isoformat(), "python": platform.python_version()}))
`;

export default {
  async scheduled(event: Pick<ScheduledController, 'scheduledTime'>, env: Env): Promise<void> {
    const day = new Date(event.scheduledTime).toISOString().slice(0, 10);
    await using sandbox = getSandbox(env.Sandbox, `report-${day}`);
    await sandbox.writeFile('/workspace/report.py', REPORT);
    const result = await sandbox.exec('python /workspace/report.py', { timeout: 60_000 });
    if (!result.success) throw new Error(`the report of ${day} failed: ${result.stderr}`);
    await env.REPORTS.put(day, result.stdout);
  },
};
