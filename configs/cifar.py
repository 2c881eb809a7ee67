"""What the configs of tables on CIFAR share: the data, and SGD with Nesterov momentum and a cosine."""

EXAMPLES = 50_000
"""To train on."""

VIEWS = dict(recipe="crop_flip", shift=4, flip=0.5)

CONTRAST = dict(
    recipe="simclr",
    crop_scale=[0.2, 1.0],
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    blur=0.0,
)
"""Views of one image that a contrastive method takes for alike."""

CIFAR10 = dict(name="cifar10", mean=[0.4914, 0.4822, 0.4465], std=[0.2470, 0.2435, 0.2616])
CIFAR100 = dict(name="cifar100", mean=[0.5071, 0.4867, 0.4408], std=[0.2675, 0.2565, 0.2761])


def nesterov(learning_rate: float, weight_decay: float) -> dict:
    """Fields of SGD, without a schedule."""
    return dict(
        name="sgd",
        learning_rate=learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=weight_decay,
    )


def sgd(
    epochs: float,
    learning_rate: float,
    weight_decay: float,
    *,
    examples: int,
    batch: int,
    warmup: int,
) -> dict:
    """Fields of a stage that trains so many epochs, with four lines of its log in each."""
    steps = round(epochs * examples / batch)
    return dict(
        steps=steps,
        batch=batch,
        optimizer=dict(
            nesterov(learning_rate, weight_decay),
            schedule=dict(name="cosine", warmup_steps=min(warmup, steps // 2)),
        ),
        log_every_steps=max(1, round(examples / batch / 4)),
    )
