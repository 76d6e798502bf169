const sdk = require('@cloudflare/sandbox');
import('./steps.mjs')
  .then(({ steps }) => steps(sdk, undefined, process.argv[2]))
  .then((done) => console.log(JSON.stringify(done)));
