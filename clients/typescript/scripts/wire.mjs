// Writes src/wire.ts, the types of what goes over the wire, from the server's OpenAPI document:
//
//   node scripts/wire.mjs [DOCUMENT]           write it
//   node scripts/wire.mjs --check [DOCUMENT]   fail if it is not what would be written
//
// DOCUMENT is a file; without one the document is asked of the server that the environment names.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const target = fileURLToPath(new URL('../src/wire.ts', import.meta.url));
const args = process.argv.slice(2);
const check = args[0] === '--check';
const [file] = check ? args.slice(1) : args;

async function document() {
  if (file) return JSON.parse(await readFile(file, 'utf8'));
  const state = process.env.SANDBAR_STATE_DIR ?? '/var/lib/sandbar';
  const url = process.env.SANDBAR_URL ?? (await readFile(`${state}/endpoint`, 'utf8')).trim();
  const response = await fetch(`${url}/openapi.json`);
  if (!response.ok) throw new Error(`${url}/openapi.json answered ${response.status}`);
  return response.json();
}

const comment = (text, indent) => {
  if (!text) return '';
  const lines = text.replaceAll('*/', '* /').split('\n').map((line) => line.trimEnd());
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} *${line && ` ${line}`}`).join('\n')}\n${indent} */\n`;
};

function type(schema, indent) {
  if (schema === undefined || schema === true) return 'unknown';
  if (schema.$ref) return schema.$ref.replace('#/components/schemas/', '');
  const several = schema.oneOf ?? schema.anyOf;
  if (several) {
    return several.map((each) => `${comment(each.description, indent).trim()} ${type(each, indent)}`.trim()).map((text) => `\n${indent}| ${text}`).join('');
  }
  if (schema.allOf) return schema.allOf.map((each) => type(each, indent)).join(' & ');
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (Array.isArray(schema.type)) return schema.type.map((name) => type({ ...schema, type: name }, indent)).join(' | ');
  switch (schema.type) {
    case 'string':
      return 'string';
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
      return 'boolean';
    case 'null':
      return 'null';
    case 'array': {
      const item = type(schema.items, indent);
      return /^[\w.]+$/.test(item) ? `${item}[]` : `Array<${item}>`;
    }
    case 'object':
    case undefined: {
      const { properties, additionalProperties } = schema;
      if (!properties) {
        const value = type(additionalProperties || undefined, indent);
        return `Record<string, ${value}>`;
      }
      const required = new Set(schema.required);
      const fields = Object.entries(properties).map(([name, field]) => {
        const deeper = `${indent}  `;
        const key = /^[A-Za-z_]\w*$/.test(name) ? name : JSON.stringify(name);
        return `${comment(field.description, deeper)}${deeper}${key}${required.has(name) ? '' : '?'}: ${type(field, deeper)};\n`;
      });
      return `{\n${fields.join('')}${indent}}`;
    }
    default:
      throw new Error(`a schema of the type ${schema.type}`);
  }
}

const { components } = await document();
let text = '// Written by scripts/wire.mjs from the OpenAPI document. Do not edit.\n';
for (const [name, schema] of Object.entries(components.schemas).sort(([a], [b]) => (a < b ? -1 : 1))) {
  text += `\n${comment(schema.description, '')}export type ${name} = ${type(schema, '')};\n`;
}

if (check) {
  if ((await readFile(target, 'utf8')) !== text) {
    console.error('src/wire.ts is not what the server offers. Run `npm run generate` in clients/typescript and commit it.');
    process.exit(1);
  }
} else {
  await writeFile(target, text);
  console.log(`${Object.keys(components.schemas).length} types in src/wire.ts`);
}
