"""Trading states of scopes as the columns have them: worked out whole before any of them is put in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from models.gate import state as gs
from models.gate.limit_nodes import STATED_BY_NODE
from models.gate.state import GateState
from schemas.records import Control


class States(NamedTuple):
    """The state of everything, and of accounts the node that it comes from."""

    firm: int
    accounts: np.ndarray
    account_nodes: np.ndarray
    instruments: np.ndarray
    nodes: np.ndarray
    #: by scope, of names that orders may come with and that have no node
    unplaced: dict[str, int]

    def put(self, state: GateState) -> None:
        """Put the states in place; nothing of this can fail."""
        state.accounts["state"], state.accounts["state_node"] = self.accounts, self.account_nodes
        state.instruments["state"], state.nodes["state"] = self.instruments, self.nodes
        state.settings["state"] = self.firm


def states_of(state: GateState, controls: Mapping[str, Control]) -> States:
    """Return what controls come to; a scope that nothing lies under yet has no row, and gets none."""
    unplaced: dict[str, int] = {}
    firm = gs.ACTIVE
    accounts, at = np.zeros(len(state.accounts), np.int8), np.full(len(state.accounts), -1, np.int32)
    instruments, nodes = np.zeros(len(state.instruments), np.int8), np.zeros(len(state.nodes), np.int8)
    for scope, control in controls.items():
        level, (kind, _, name) = gs.STATES.index(control.state), scope.partition(":")
        node = state.node_index.get(scope, -1)
        if scope == "all":
            firm = max(firm, level)
        elif kind == "instrument":
            if name in state.instrument_index:
                instruments[state.instrument_index[name]] = level
        elif kind in STATED_BY_NODE:
            if node >= 0:
                nodes[node] = level
            elif level > gs.ACTIVE:
                unplaced[scope] = level
        elif node >= 0:
            stricter = (state.accounts["nodes"] == node).any(axis=1) & (accounts < level)
            accounts[stricter], at[stricter] = level, node
    return States(firm, accounts, at, instruments, nodes, unplaced)
