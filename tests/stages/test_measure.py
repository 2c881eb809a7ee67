"""What the report says of a timing is what was timed."""

from kdjax import train
from kdjax.contexts import Context
from kdjax.measuring import measure


def test_latency_is_of_the_batch_that_is_reported(line):
    run, tasks, splits = line.plan(latency_batch=200)  # more than the 72 test images
    context = Context(run, "x", 0, tasks[0].folder, {}, splits, train.choose("single"))
    seen = set()

    def see(inputs):
        (image,) = inputs.values()
        seen.add((image.shape, str(image.dtype)))

    measure.timed(context, see, seconds=0.1)
    assert len(splits.test) < 200
    assert seen == {((200, 8, 8, 1), "uint8")}
    seen.clear()
    measure.timed(context, lambda inputs: seen.add(len(inputs["image"])), bulk=True, seconds=0.1)
    assert seen == {64}
