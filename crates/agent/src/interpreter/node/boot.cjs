// Reads the program from the agent, on descriptor 3, and runs it. Small, because it is an argument.
// In a block, because what it declared would be in the way of the code.
{
  const fs = require("fs");
  const vm = require("vm");
  const receive = (count) => {
    const data = Buffer.alloc(count);
    for (let at = 0; at < count; ) {
      const length = fs.readSync(3, data, at, count - at);
      if (length === 0) process.exit(0);
      at += length;
    }
    return data;
  };
  const sources = JSON.parse(receive(receive(4).readUInt32BE(0)).toString());
  const load = (name) => {
    const module = { exports: {} };
    const text = `(function (require, module, exports, load, language) {${sources[name]}\n})`;
    vm.runInThisContext(text, { filename: `sandbar:${name}` })(require, module, module.exports, load, sources.language);
    return module.exports;
  };
  load("kernel");
}
