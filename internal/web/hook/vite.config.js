import { defineConfig } from 'vite';

// The custom element as one file, for pages that have no bundler. All else is as tsc makes it.
export default defineConfig({
  root: import.meta.dirname,
  build: {
    emptyOutDir: false,
    lib: { entry: 'src/element.ts', formats: ['es'], fileName: 'job-progress' },
    rolldownOptions: { output: { minify: true } },
  },
});
