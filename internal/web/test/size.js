// The package stays under 3 kB, gzipped: all of it together, as a bundler would put it into an application.
import { gzipSync } from 'node:zlib';
import { build } from 'vite';

const limit = 3000; // bytes
const { output } = await build({
  configFile: false,
  logLevel: 'error',
  build: {
    write: false,
    lib: { entry: 'hook/dist/index.js', formats: ['es'] },
    rolldownOptions: { external: ['react', '@tanstack/react-query'], output: { minify: true } },
  },
}).then((result) => (Array.isArray(result) ? result[0] : result));
const size = gzipSync(output[0].code, { level: 9 }).length;
console.log(`use-job-progress: ${size} bytes gzipped, at most ${limit}`);
if (size > limit) process.exit(1);
