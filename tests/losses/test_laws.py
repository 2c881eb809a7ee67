"""What holds of every loss, whatever its formula."""

import pytest

from tests.losses import laws
from tests.losses.cases import (
    clusters,
    features,
    logits,
    negatives,
    predictive,
    redundancy,
    sequences,
)

TABLES = (clusters, features, logits, negatives, predictive, redundancy, sequences)
CASES = [case for table in TABLES for case in table.CASES]
DERIVED = [case for case in CASES if case.by_hand is not None]
PROGRAMS = [case for case in CASES if not case.variant]
every = pytest.mark.parametrize(**laws.named(CASES))
every_program = pytest.mark.parametrize(**laws.named(PROGRAMS))


@pytest.mark.parametrize(**laws.named(DERIVED))
def test_golden(case):
    laws.check_value(case)


# The codes of SwAV are slow by hand.
@pytest.mark.parametrize(**laws.named([case for case in DERIVED if case.name != "swav 1"]))
def test_gradient(case):
    laws.check_gradient(case)


@every
def test_hard_rows_stay_finite_and_no_gradient_reaches_the_teacher(case):
    laws.check_finite(case)


@every_program
def test_low_precision_is_computed_in_float32(case):
    laws.check_low_precision(case)


@every_program
def test_second_call_does_not_retrace(case):
    laws.check_no_retrace(case)


@pytest.mark.parametrize(**laws.named([case for case in PROGRAMS if case.batch_axes is not None]))
def test_eight_devices_give_the_loss_and_the_gradient_of_one(case):
    laws.check_devices(case)
