/** What the steps come to, on each runtime. */
export const EXPECTED = {
  exec: '42\n',
  lines: ['stderr two', 'stdout one'],
  bytes: true,
  collected: 100_000,
  line: 'ad',
  status: 'killed',
  session: 'it\n',
  error: 'FileNotFoundError FILE_NOT_FOUND 404',
  aborted: 'yes',
  left: 'none\n',
  terminal: [true, 3],
};

/** The server of this run, for programs that have no files of its machine. */
import { readFileSync } from 'node:fs';

const state = process.env.SANDBAR_STATE_DIR ?? '/var/lib/sandbar';
export const url = process.env.SANDBAR_URL ?? readFileSync(`${state}/endpoint`, 'utf8').trim();
export const key = process.env.SANDBAR_KEY ?? readFileSync(`${state}/key`, 'utf8').trim();
