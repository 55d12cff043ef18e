"""Lottery-ticket literature, reproduced: populations of sparse networks, trained and measured together.

The unit of computation is a population (`lth.population`): R networks of one architecture, stacked, beside
a table that says what each of them is. Make one (`lth.methods`), train it (`lth.training.train`), measure it
(`lth.analysis`), show it (`lth.book`).
"""

__version__ = "0.1.0"
