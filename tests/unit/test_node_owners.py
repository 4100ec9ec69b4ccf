"""Who states a node: all workers agree, from the accounts alone."""

from __future__ import annotations

from models.node_owners import NodeOwners
from models.reference import Reference
from schemas.records import Account

PARTITIONS = {"": 3, "F1": 0, "F2": 1}


def account(name: str, fund: str, **fields: str) -> Account:
    return Account(account=name, **({"book": f"B{name}", "desk": "D1", "strategy": "S", "fund": fund} | fields))


def owners(*accounts: Account) -> tuple[NodeOwners, Reference]:
    reference = Reference(lambda _: 0)
    for record in accounts:
        reference.add_account(record)
    return NodeOwners(reference, ("book", "desk", "strategy", "fund", "firm"), PARTITIONS.__getitem__), reference


def test_a_node_belongs_to_the_partition_of_its_fund_unless_it_spans_several() -> None:
    found, _ = owners(account("A", "F1", dealer="ann"), account("B", "F2", dealer="ann", pm="pia"))
    assert [found.partition(n) for n in ("account:A", "book:BA", "fund:F1", "account:B", "fund:F2", "pm:pia")] == [0, 0, 0, 1, 1, 1]
    for spanning in ("firm", "desk:D1", "strategy:S", "dealer:ann", "issuer:X", "currency:USD", "sector:banks"):
        assert found.partition(spanning) is None, spanning


def test_an_account_that_moves_takes_its_nodes_along() -> None:
    found, reference = owners(account("A", "F1"), account("B", "F1"))
    assert found.partition("desk:D1") == 0
    reference.add_account(account("B", "F2"))
    found.accounts_changed()
    assert found.partition("account:B") == found.partition("book:BB") == 1 and found.partition("desk:D1") is None


def test_an_account_nobody_has_said_anything_about_lies_where_rows_without_a_fund_do() -> None:
    found, _ = owners()
    assert found.partition("account:unknown") == 3 and found.partition("book:unknown") is None
