"""P07: transactions in the user's own database. Nothing was committed, unless the text says otherwise."""

from __future__ import annotations

from perdure.core.errors.base import TheirError, YourError


class ResultRolledBack(YourError):
    """A transaction's function returned what cannot be recorded. Fields: name, location, reason, value."""

    code = "P0701"
    text = (
        "Transaction {name!r} at {location} was rolled back, because its result cannot be recorded: {reason}\n"
        "The result was: {value}\n"
    )
    cure = "Nothing was committed. Return data of the annotated type, then `perdure resume` runs it again."


class TransactionMisused(YourError):
    """A transaction's function ended its own transaction. Fields: name, location, what."""

    code = "P0702"
    text = "The function of transaction {name!r} at {location} {what}; it was rolled back."
    cure = (
        "Leave the end to Perdure: return to commit, raise to roll back, begin_nested() for a part of it. "
        "Then `perdure resume` runs it again."
    )


class TransactionDisagrees(YourError):
    """A record was committed at this place of this run for something else. Fields: key, recorded, now, location."""

    code = "P0703"
    text = (
        "The database holds the record of another transaction at this place of the run ({key}).\n"
        "  recorded: {recorded}\n"
        "  now:      {now}\n"
        "  where:    {location}\n"
    )
    cure = (
        "The journal is from before the database (a restored copy?) and took another way since, or the code changed "
        "between the commit and its entry in the journal. Bring back the code or the journal that belong to the "
        "database, then `perdure resume`."
    )


class TransactionTorn(YourError):
    """A record was committed without its end: the function ended its own transaction and died. Fields: name, key."""

    code = "P0704"
    text = (
        "The record of transaction {name!r} ({key}) was committed before its function had ended: the function ended "
        "its own transaction and died, and a part of what it wrote is committed."
    )
    cure = "Undo that part by hand and delete the record from perdure_transactions; then `perdure resume` runs it anew."


class TransactionUnsettled(TheirError):
    """The database did not say whether a transaction was committed. Fields: name, key, detail."""

    code = "P0705"
    text = "Whether transaction {name!r} ({key}) was committed could not be asked: {detail}."
    cure = "Nothing is lost, and nothing is done twice: once the database answers, `perdure resume` asks again."


class SQLAlchemyMissing(YourError, ImportError):
    """Transactions need SQLAlchemy. Fields: detail."""

    code = "P0706"
    text = "perdure.transaction needs SQLAlchemy 2: {detail}."
    cure = "Install it: pip install 'sqlalchemy>=2.0.30'."
