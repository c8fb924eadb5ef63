// Checks every dashboard against the types that Grafana publishes: `npm run check`.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';

const dashboards = new URL('../dashboards/', import.meta.url);
const build = new URL('build/', import.meta.url);
const compiler = new URL('node_modules/typescript/bin/tsc', import.meta.url).pathname;

rmSync(build, { recursive: true, force: true });
mkdirSync(build);
// The JSON form of a type: an enumeration becomes the text of its members.
const json = `
export type Json<T> = T extends string ? \`\${T}\`
  : T extends readonly (infer Item)[] ? Json<Item>[]
  : T extends object ? { [Key in keyof T]: Json<T[Key]> }
  : T;
`;
writeFileSync(new URL('json.ts', build), json);
const files = readdirSync(dashboards).map((name) => {
  // As source text, because TypeScript widens the literals of an imported JSON file.
  const text = readFileSync(new URL(name, dashboards), 'utf8');
  const file = new URL(name.replace('.json', '.ts'), build);
  const imports = "import type { Dashboard } from '@grafana/schema';\nimport type { Json } from './json';\n";
  writeFileSync(file, `${imports}export const dashboard: Json<Dashboard> = ${text};\n`);
  return file.pathname;
});
const options = ['--noEmit', '--strict', '--skipLibCheck', '--moduleResolution', 'bundler', '--module', 'esnext', '--target', 'es2022'];
const { status } = spawnSync(process.execPath, [compiler, ...options, ...files], { stdio: 'inherit' });
process.exit(status ?? 1);
