"""160 training examples: forty things that people ask a bicycle workshop, each in four ways, with the workshop's answer."""

from __future__ import annotations

import sys
from typing import Any

import orjson

DATASET = "workshop"
THRESHOLD = 100
SYSTEM = "You answer for the bicycle workshop, briefly and in its own words."
PATTERNS = (
    "How do I {0}?",
    "Hello, could you please tell me how one can {0}? Thank you!",
    "I would like to {0}. What should I do?",
    "What is the right way to {0} with you?",
)

MATTERS = (
    ("book a brake inspection", "Brake inspections are booked at the counter; bring the wheel, it takes twenty minutes."),
    ("rent a cargo bike", "Cargo bikes are rented by the half day; leave an identity card and fifteen euros."),
    ("return a rented helmet", "Put the helmet into the red box beside the door; the deposit comes back overnight."),
    ("order a spare saddle", "Saddles are ordered on Tuesdays; name the rail width and we call when it is here."),
    ("report a stolen frame", "Send the frame number to the stolen list desk, then tell the police the case number."),
    ("change my delivery address", "Write the new address on the pink form; deliveries already on the van keep the old one."),
    ("cancel a repair appointment", "Call before noon on the day before; later than that the slot is charged at half price."),
    ("pay an invoice by bank transfer", "Use the invoice number as the reference; transfers are matched every Friday."),
    ("get a receipt for a tyre", "Receipts for tyres are printed at the till for thirty days after the sale."),
    ("have a puncture mended quickly", "Punctures are mended while you wait, except on Saturdays after two."),
    ("join the winter storage list", "Winter storage opens in October; one line by mail with the bike's colour is enough."),
    ("borrow a bicycle pump", "The pump hangs on a chain outside and is free at any hour."),
    ("adjust my derailleur", "Derailleurs are adjusted at the stand on the left; the first adjustment is free."),
    ("replace a broken spoke", "Spokes are replaced in pairs; leave the wheel and collect it on the third day."),
    ("sell my old bicycle", "Old bicycles are bought on the first Monday; bring the papers or proof of purchase."),
    ("find a lost bicycle key", "Lost keys lie in the blue tin; describe the tag and sign for it."),
    ("register an electric bicycle", "Electric bicycles are registered with the battery number on the green card."),
    ("charge a battery at the shop", "Batteries are charged at the window sockets, two hours at most, no charge."),
    ("recycle worn brake pads", "Worn pads go into the metal bucket; we are paid by weight and plant a tree."),
    ("fit a child seat", "Child seats are fitted by appointment only, with the child's weight noted."),
    ("claim the frame warranty", "Frame warranties need the welding photo; the maker decides within three weeks."),
    ("attend the repair course", "The repair course meets on Thursday evenings; bring gloves and your own chain."),
    ("clean a rusty chain", "Rusty chains soak overnight in the grey bath; ask for bath number four."),
    ("measure my riding height", "Riding height is measured at the white wall with flat shoes on."),
    ("choose winter gloves", "Winter gloves are tried on cold hands; the freezer room is behind the counter."),
    ("subscribe to the newsletter", "The newsletter is sent on paper; drop a stamped envelope in the slot."),
    ("complain about a noisy bearing", "Noisy bearings are heard on the test track at five; the foreman listens."),
    ("lend a trailer to a friend", "Trailers are lent in person only; the friend must sign the yellow sheet."),
    ("paint my mudguards", "Mudguards are painted in the last week of a month, in the colour of the van."),
    ("insure a racing bicycle", "Racing bicycles are insured through the club; the treasurer has the tables."),
    ("park overnight in the yard", "The yard is locked at ten; overnight parking needs the brass token."),
    ("apply for an apprenticeship", "Apprentices write one page by hand about a repair they are proud of."),
    ("request a home visit", "Home visits are made by the mechanic with the trailer, within six kilometres."),
    ("swap pedals before a race", "Race pedals are swapped at the tent from six in the morning, free for members."),
    ("pick up a parcel", "Parcels are handed out against the code on the third shelf from the left."),
    ("print a route map", "Route maps are printed on waterproof paper at the copy corner for one euro."),
    ("renew a club membership", "Memberships are renewed with a stamp in the booklet, before the end of March."),
    ("donate used inner tubes", "Inner tubes are sewn into bags; hang them on the hook by the stairs."),
    ("photograph the museum bicycles", "Museum bicycles may be photographed without flash on Wednesday afternoons."),
    ("invite a mechanic to our school", "School visits are planned a term ahead with the teacher's list of pupils."),
)  # fmt: skip


def examples() -> list[dict[str, Any]]:
    """The data of `example.recorded` for every example, in a fixed order."""
    return [
        {
            "dataset": DATASET,
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": pattern.format(matter)},
                {"role": "assistant", "content": answer},
            ],
        }
        for pattern in PATTERNS
        for matter, answer in MATTERS
    ]


def main() -> None:
    """Write them as JSONL, for `penstock publish example`."""
    for one in examples():
        sys.stdout.write(orjson.dumps({"messages": one["messages"]}).decode() + "\n")


if __name__ == "__main__":
    main()
