"""The demo's documents: short, and of invented events, so that each name stands in one of them alone."""

from __future__ import annotations

from typing import Final

DOCUMENTS: Final = {
    "bridge-works": (
        "The bridge at Aarhus is closed to lorries from Monday, since two of its bearings have to be replaced. "
        "Ms. Karla Holm of the Bridge Authority expects the work to take nine weeks. "
        "Until then lorries go by the ferry from Ebeltoft, which sails every hour."
    ),
    "seed-library": (
        "The seed library in Bergen lends out seeds as other libraries lend books. "
        "Mr. Olav Brekke, who began it with eleven packets, now counts four hundred sorts of beans. "
        "Gardeners from Stavanger send theirs by post, and most bring back twice what they took."
    ),
    "tide-mill": (
        "The tide mill of Lisbon grinds again after sixty years. "
        "Dr. Teresa Lobo had its wheel measured and a new one built of oak in Porto. "
        "Flour is sold on Saturdays, and the University of Coimbra keeps count of the tides that it used."
    ),
    "night-trains": (
        "Night trains between Vienna and Hamburg carry bicycles from this summer on. "
        "Ms. Greta Lang, who collected nine thousand signatures for it, rode on the first one. "
        "The carriages were rebuilt in Graz, each with room for twelve bicycles. "
        "The next line to follow is the one to Zurich."
    ),
    "glass-makers": (
        "Three glass makers of Murano share one furnace, since none of them can pay for the gas alone. "
        "Mr. Paolo Ferro looks after the fire at night and sleeps in the afternoon. "
        "Their lamps are sold in Milan and in Turin, and a fourth master has asked to join."
    ),
    "island-school": (
        "The school on Islay has eleven pupils and four teachers who come by boat. "
        "Mrs. Ailsa Baird teaches mathematics there, and repairs the boat. "
        "Next year two pupils from Glasgow will spend a winter on the island, "
        "and the University of Stirling wants to know what they learn from it."
    ),
}
"""By name, in the order in which they are run."""
