"""What the report says of a timing is what was timed."""

from kdjax import train
from kdjax.stages import Context, measure


def test_latency_is_of_the_batch_that_is_reported(line):
    run, tasks, splits = line.plan(latency_batch=200)  # more than the 72 test images
    context = Context(run, "x", 0, tasks[0].folder, {}, splits, train.choose("single"))
    seen = set()
    measure.timed(context, lambda images: seen.add((images.shape, str(images.dtype))))
    assert len(splits.test) < 200
    assert seen == {((200, 8, 8, 1), "uint8")}
    seen.clear()
    measure.timed(context, lambda images: seen.add(len(images)), bulk=True)
    assert seen == {64}
