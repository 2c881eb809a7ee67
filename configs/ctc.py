"""What the configs of transcripts share: AdamW with a cosine, and the int8 form of an LSTM on spectra."""


def adamw(steps: int, *, batch: int, rate: float, lines: int) -> dict:
    """Fields of a stage that trains so many steps, with so many lines of its log."""
    cosine = dict(name="cosine", warmup_steps=max(1, steps // 10))
    optimizer = dict(
        name="adamw", learning_rate=rate, weight_decay=1e-2, clip_norm=1.0, schedule=cosine
    )
    return dict(
        steps=steps, batch=batch, optimizer=optimizer, log_every_steps=max(1, steps // lines)
    )


def int8(model: str, *, examples: int, agreement: float) -> dict:
    """A stage: recurrent layers find their ranges in each call, the others have calibrated ones."""
    return dict(
        kind="quantize",
        model=model,
        rules=[dict(pattern=".*lstm.*", activations="dynamic"), dict(pattern=".*")],
        float_edges=False,
        calibration_examples=examples,
        agreement=agreement,
    )
