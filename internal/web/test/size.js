// What of the package comes into a page, gzipped, as a bundler puts it there.
import { gzipSync } from 'node:zlib';
import { build } from 'vite';

/** Of each entry: at most so many bytes. */
const limits = { hook: 5500, tabs: 2000, element: 5500 };

for (const [entry, limit] of Object.entries(limits)) {
  const { output } = await build({
    configFile: false,
    logLevel: 'error',
    build: {
      write: false,
      lib: { entry: `hook/dist/${entry}.js`, formats: ['es'] },
      rolldownOptions: { external: ['react', '@tanstack/react-query'], output: { minify: true } },
    },
  }).then((result) => (Array.isArray(result) ? result[0] : result));
  const size = gzipSync(output[0].code, { level: 9 }).length;
  console.log(`use-job-progress, ${entry}: ${size} bytes gzipped, at most ${limit}`);
  if (size > limit) process.exitCode = 1;
}
