"""Peptides as text: the part of ProForma 2 that names, numbers and masses need.

Written is ProForma (https://www.psidev.info/proforma):
``[Acetyl]-M[Oxidation]C[+57.021464]K``. Read are also the older ways in which other
tools put a mass behind its residue or in front of the peptide: ``+42.011PEPTIDE``,
``M+15.995``, ``M(+15.99)``. All else that ProForma allows (positions left open,
C-terminal and global modifications, glycans, cross-links) is refused.
"""

import re
from dataclasses import dataclass

from sciseq.errors import InputError, InputTypeError

__all__ = ["Peptidoform", "delta_mass", "format_proforma", "parse_proforma"]

_MASS = r"[+-](?:\d+\.?\d*|\.\d+)"
_PIECE = re.compile(
    rf"(?P<residue>[A-Z])|\[(?P<tag>[^\[\]]+)\]|\((?P<bracketed>{_MASS})\)"
    rf"|(?P<mass>{_MASS})"
)
_NUMBER = re.compile(_MASS)
_CHARGE = re.compile(r"/\d+$")
# Prefixes of ProForma that point to other vocabularies, or to no chemistry at all.
_OTHER_VOCABULARY = re.compile(
    r"(?:M|MOD|R|RESID|X|XLMOD|G|GNO|C|Glycan|Formula|Info|Obs|Position|Limit):",
    re.IGNORECASE,
)
_HINTS = {
    "(": "In round brackets only a signed mass is read, as in 'M(+15.99)'.",
    "-": "Modifications of the C-terminus are not read.",
    "?": "Put each modification behind its residue.",
    "<": "Put each modification behind its residue.",
    "{": "Labile modifications are not read.",
    "/": "A charge is read as '/2' at the end.",
    ".": "Leave the residues before and behind the peptide out.",
}


@dataclass(frozen=True)
class Peptidoform:
    """A peptide with its modifications, as written.

    Parameters
    ----------
    residues : str
        One capital letter per residue, N to C.
    modifications : tuple of tuple of str
        Per residue the names, ``UNIMOD:`` numbers or signed masses behind it.
    n_terminal : tuple of str
        The same for the N-terminus.
    """

    residues: str
    modifications: tuple[tuple[str, ...], ...]
    n_terminal: tuple[str, ...] = ()


def delta_mass(tag: str) -> float | None:
    """Return the mass in Da that a tag states, None when it is a name.

    Examples
    --------
    >>> delta_mass("+15.9949"), delta_mass("Oxidation")
    (15.9949, None)
    """
    return float(tag) if _NUMBER.fullmatch(tag) else None


def parse_proforma(text: str) -> Peptidoform:
    """Read a peptide from ProForma, or from the older notations.

    Parameters
    ----------
    text : str
        For example ``"[Acetyl]-M[Oxidation]C[UNIMOD:4]K"``, ``"+42.011PEPTIDE"``,
        ``"M(+15.99)PEPTIDE"``, ``"PEPTM+15.995IDE"``. A charge at the end (``/2``)
        is dropped.

    Returns
    -------
    Peptidoform
        Its parts; names are not looked up.

    Raises
    ------
    InputError
        For anything else; it names the character and its position, counted from 1.
    InputTypeError
        When it is no text.

    Examples
    --------
    >>> parse_proforma("[Acetyl]-M[Oxidation]CK/2")
    Peptidoform(residues='MCK', modifications=(('Oxidation',), (), ()),
                n_terminal=('Acetyl',))
    >>> parse_proforma("+42.011M(+15.99)K").n_terminal
    ('+42.011',)
    """
    if not isinstance(text, str):
        raise InputTypeError(f"a peptide is {text!r}, must be text", where="peptide")
    peptide = _CHARGE.sub("", text.strip())
    n_terminal, position = _read_n_terminal(peptide)
    residues: list[str] = []
    tags: list[tuple[str, ...]] = []
    while position < len(peptide):
        piece = _PIECE.match(peptide, position)
        if piece is None or not (residues or piece["residue"]):
            raise _unreadable(peptide, position)
        if piece["residue"]:
            residues.append(piece["residue"])
            tags.append(())
        else:
            tags[-1] += (_tag_of(piece, peptide),)
        position = piece.end()
    if not residues:
        raise InputError(
            f"peptide {text!r} has no residue",
            hint="Write it like 'PEPTM[Oxidation]K'.",
        )
    return Peptidoform("".join(residues), tuple(tags), n_terminal)


def format_proforma(peptide: Peptidoform) -> str:
    """Write a peptide as ProForma.

    Examples
    --------
    >>> format_proforma(parse_proforma("+42.011M(+15.99)CK"))
    '[+42.011]-M[+15.99]CK'
    """
    front = "".join(f"[{tag}]" for tag in peptide.n_terminal)
    body = "".join(
        letter + "".join(f"[{tag}]" for tag in tags)
        for letter, tags in zip(peptide.residues, peptide.modifications, strict=True)
    )
    return f"{front}-{body}" if front else body


def _read_n_terminal(peptide: str) -> tuple[tuple[str, ...], int]:
    """Return the tags before the first residue, and where that stands."""
    tags: list[str] = []
    position = 0
    needs_dash = False
    while (piece := _PIECE.match(peptide, position)) and not piece["residue"]:
        tags.append(_tag_of(piece, peptide))
        needs_dash = piece["tag"] is not None
        position = piece.end()
    if needs_dash and peptide[position : position + 1] != "-":
        raise InputError(
            f"{peptide!r}: '-' is needed behind the modification of the N-terminus",
            where=f"character {position + 1}",
            hint="Write it like '[Acetyl]-PEPTIDE'.",
        )
    return tuple(tags), position + needs_dash


def _tag_of(piece: re.Match[str], peptide: str) -> str:
    tag = piece["tag"] or piece["bracketed"] or piece["mass"]
    tag = re.sub(r"^U:", "", tag)
    if _OTHER_VOCABULARY.match(tag) or "#" in tag or "|" in tag:
        raise InputError(
            f"{peptide!r}: modification {tag!r} is of a kind that is not read",
            where=f"character {piece.start() + 1}",
            hint="Write its Unimod name, 'UNIMOD:' and its number, or its mass.",
        )
    return tag


def _unreadable(peptide: str, position: int) -> InputError:
    character = peptide[position]
    hint = _HINTS.get(character, "Write it like '[Acetyl]-PEPTM[Oxidation]K'.")
    if character.islower():
        hint = "Write residues in capital letters."
    return InputError(
        f"{peptide!r}: {character!r} cannot be read here",
        where=f"character {position + 1}",
        hint=hint,
    )
