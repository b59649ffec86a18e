"""The parts that demo molecules are put together from: cores, linkers, tails, small substituents.

A core holds two places, `{0}` and `{1}`. Cores use the ring numbers 1 to 4 and tails 6 to 9, so
that the text of one can stand in the other. Everything here is ordinary medicinal chemistry.
"""

from __future__ import annotations

CARBON_CORES = (
    "c1ccc({0})cc1{1}",
    "c1cc({0})ccc1{1}",
    "c1cc({0})cnc1{1}",
    "c1cc({0})nc({1})c1",
    "c1nc({0})ncc1{1}",
    "c1nc({0})cc({1})n1",
    "c1c({0})sc({1})n1",
    "Cc1nc({0})sc1{1}",
    "c1cc({0})sc1{1}",
    "Cn1nc({0})cc1{1}",
    "c1c({0})onc1{1}",
    "c1cc2cc({0})ccc2nc1{1}",
    "c1cc2c({0})ccnc2cc1{1}",
    "c1cc2ncnc({0})c2cc1{1}",
    "c1cc2nc({0})[nH]c2cc1{1}",
    "Cn1c({0})nc2cc({1})ccc12",
    "c1cc2[nH]c({0})cc2cc1{1}",
    "Cn1cc({0})c2cc({1})ccc12",
    "c1cc2sc({0})nc2cc1{1}",
    "c1cc2oc({0})nc2cc1{1}",
    "c1cc2oc({0})cc2cc1{1}",
    "Cn1nc({0})c2cc({1})ccc12",
    "c1nc({0})c2sccc2n1",
    "c1nc({0})c2c({1})c[nH]c2n1",
    "c1cn2cc({0})nc2cc1{1}",
    "c1cc2n(n1)cc({0})nc2{1}",
    "c1cc2ccc({0})cc2cc1{1}",
    "c1cc2ncc({0})nc2cc1{1}",
    "O=c1[nH]c({0})nc2ccc({1})cc12",
    "O=c1cc({0})oc2cc({1})ccc12",
    "c1cc2OCCOc2cc1{0}",
    "c1cc2CCC(=O)Nc2cc1{0}",
)
"""Both places stand on an aromatic carbon."""

NITROGEN_CORES = (
    "C1CN({0})CCN1c2ccc({1})cc2",
    "C1CN({0})CCN1c2cccc({1})c2",
    "C1CN({0})CCN1c2ncccc2{1}",
    "C1CN({0})CCC1c2ccc({1})cc2",
    "C1CN({0})CCC1Oc2ccc({1})cc2",
    "C1CN({0})CCC1C(=O)Nc2ccc({1})cc2",
    "C1CCN({0})C1c2ccc({1})cc2",
    "C1CC(CN1{0})Oc2ccc({1})cc2",
    "C1Cc2cc({1})ccc2CN1{0}",
    "C1CN({0})c2ccc({1})cc2C1",
    "C1CC2(CCN1{0})CCc3cc({1})ccc23",
    "C1CN({0})Cc2cn(nc12)c3ccc({1})cc3",
    "C1C(CN1{0})Nc2ccc({1})cc2",
    "C1CN({0})CCC1n2cnc3cc({1})ccc23",
)
"""Place 0 stands on a ring nitrogen, place 1 on an aromatic carbon."""

ARYL_TAILS = (
    "c6ccccc6",
    "c6ccc(F)cc6",
    "c6ccc(Cl)cc6",
    "c6cccc(Cl)c6",
    "c6ccc(OC)cc6",
    "c6cccc(C(F)(F)F)c6",
    "c6ccc(C#N)cc6",
    "c6c(F)cccc6F",
    "c6ccc(S(C)(=O)=O)cc6",
    "c6ccncc6",
    "c6cccnc6",
    "c6cnn(C)c6",
    "c6cscn6",
    "c6ccco6",
    "c6ccc7OCOc7c6",
    "c6cnc7ccccc7c6",
    "c6noc(C)c6",
)
ALKYL_TAILS = (
    "C6CC6",
    "C6CCC6",
    "C6CCCC6",
    "C6CCCCC6",
    "C6CCOCC6",
    "C6COC6",
    "CC6CC6",
    "CC(C)C",
    "C(C)(C)C",
    "CCOC",
    "C[C@H]6CCCO6",
    "[C@@H](C)c6ccccc6",
    "[C@H](C)c6ccc(F)cc6",
    "Cc6ccc(F)cc6",
    "Cc6cccnc6",
    "Cc6ccco6",
    "CCc6ccccc6",
)
AMINE_TAILS = (
    "N6CCOCC6",
    "N6CCCCC6",
    "N6CCCC6",
    "N6CCN(C)CC6",
    "N6CCN(C(C)=O)CC6",
    "N6CCC(O)CC6",
    "N6CC(F)(F)C6",
    "N6CCC(C(N)=O)CC6",
    "N(C)C",
    "N(C)C6CC6",
    "N6CCS(=O)(=O)CC6",
    "N(CC)CC",
)

CARBON_LINKERS = ("", "O", "OC", "N", "NC", "C(=O)N", "C(=O)NC", "NC(=O)", "NC(=O)N", "CO")
SULFUR_LINKERS = ("S(=O)(=O)N", "NS(=O)(=O)")
AMINE_LINKERS = ("", "C", "C(=O)", "S(=O)(=O)", "OCC", "C(=O)NCC", "NC(=O)C")
ON_NITROGEN_LINKERS = ("C(=O)", "S(=O)(=O)", "C", "CC(=O)N", "C(=O)N", "C(=O)C")
ON_NITROGEN_AMINE_LINKERS = ("C(=O)", "C(=O)C", "CCC")

SMALL = ("F", "Cl", "C", "OC", "C(F)(F)F", "C#N", "OC(F)F", "C6CC6", "S(C)(=O)=O", "C(=O)NC", "Br")

ACID_TAILS = (
    "C(=O)O",
    "CC(=O)O",
    "CCC(=O)O",
    "OCC(=O)O",
    "OC(C)(C)C(=O)O",
    "C(=O)NCC(=O)O",
)
"""Carboxylic acids only: of several acidic groups, each would be too rare in the 120 rows of a
validation split for anyone to tell there whether its labels are right."""
BASE_TAILS = ("C(=O)NCCN", "OC6CCNCC6", "C(=O)N6CCNCC6")
IONISED_TAILS = ACID_TAILS + BASE_TAILS
"""Nearly all ionised at pH 7.4. A fifth of the primary set and most of the secondary one: what a
good secondary row can teach, and where a bad one does harm."""
