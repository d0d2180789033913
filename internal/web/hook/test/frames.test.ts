import { expect, test } from 'vitest';
import golden from '../../../job/testdata/frames.json';
import { next, nothing } from '../src/protocol.js';

test.for(golden)('the frame that the server is tested with: $name', ({ data }) => {
  const { type, ...said } = JSON.parse(data);
  const view = next(nothing, { type, jobId: 'x', ...said });
  const shown: Record<string, unknown> = {
    progress: view.progress,
    status: { status: view.status },
    error: { message: view.error },
    item: view.items.get(said.itemId),
  };
  expect(shown[type]).toEqual(said);
});
