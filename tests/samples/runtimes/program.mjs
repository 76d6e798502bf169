import * as sdk from '@cloudflare/sandbox';
import { steps } from './steps.mjs';

console.log(JSON.stringify(await steps(sdk, undefined, process.argv[2])));
