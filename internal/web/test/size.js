// The hook is at most 4 kB, gzipped: with all that it needs, as a bundler puts it into an application.
import { gzipSync } from 'node:zlib';
import { build } from 'vite';

const limit = 4000; // bytes
const { output } = await build({
  configFile: false,
  logLevel: 'error',
  build: {
    write: false,
    lib: { entry: 'hook/dist/hook.js', formats: ['es'] },
    rolldownOptions: { external: ['react', '@tanstack/react-query'], output: { minify: true } },
  },
}).then((result) => (Array.isArray(result) ? result[0] : result));
const size = gzipSync(output[0].code, { level: 9 }).length;
console.log(`use-job-progress: ${size} bytes gzipped, at most ${limit}`);
if (size > limit) process.exit(1);
