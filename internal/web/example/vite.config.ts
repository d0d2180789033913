import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// The demo is the application's server: it has the session, the list of jobs, and jobprogress behind it.
const application = process.env.APPLICATION ?? 'http://127.0.0.1:8000';

export default defineConfig({
  root: import.meta.dirname,
  plugins: [react()],
  server: { proxy: { '/api': application, '/session': application, '/sign-in': application } },
});
