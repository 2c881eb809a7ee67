import pytest


@pytest.fixture
def held(record_property):
    """Whether a pair agrees: then it is a row of the page's table, by whose it is and its name."""

    def hold(source, name, pair):
        found = pair.parity()
        layout = pair.mapped.account.layout
        row = {"source": source, "name": name, "layout": layout, **found._asdict()}
        record_property("parity", row)

    return hold
