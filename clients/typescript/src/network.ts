/** What a sandbox may reach. */

import type * as wire from './wire.js';

/**
 * `internet` for public addresses, `none`, or a list: `{ allow: ['pypi.org:443', '*.example.com', '203.0.113.0/24'] }`.
 * Never, whatever is said: the host, other sandboxes, private ranges.
 */
export type NetworkPolicy = wire.NetworkPolicy;
