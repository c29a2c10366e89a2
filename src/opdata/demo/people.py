"""Made-up players: names, addresses and habits of a dozen countries, from a seeded generator.

Nobody in here exists: addresses are in the domains reserved for examples, and telephone numbers
begin with a 555 that is given to nobody.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import date, timedelta
from random import Random
from typing import Final

from msgspec import Struct


class Country(Struct, frozen=True):
    """A market: its share of the players, and how people there are called and pay."""

    code: str
    currency: str
    calling_code: str
    weight: int
    money_scale: int
    """What one pound is in its currency, roughly: stakes and deposits are round numbers there."""
    methods: tuple[str, ...]
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]


class Player(Struct, frozen=True):
    """One player. `appetite` is how often it plays, compared with others."""

    external_id: str
    first_name: str
    last_name: str
    email: str
    phone: str
    date_of_birth: date
    country: Country
    status: str
    registered_on: date
    vip_level: int
    appetite: float


_STATUSES: Final = {"active": 880, "dormant": 85, "self_excluded": 22, "closed": 13}
_VIP_WEIGHTS: Final = (620, 220, 95, 42, 17, 6)
"""By VIP level, 0 to 5."""

_DOMAINS: Final = ("example.com", "example.net", "example.org")
_YOUNGEST_DAYS: Final = 19 * 365
_AGE_SPREAD_DAYS: Final = 50 * 365
_ACCOUNT_AGE_DAYS: Final = 6 * 365


def _country(
    code: str,
    currency: str,
    calling_code: str,
    weight: int,
    money_scale: int,
    methods: str,
    first_names: str,
    last_names: str,
) -> Country:
    texts = (tuple(text.split()) for text in (methods, first_names, last_names))
    return Country(code, currency, calling_code, weight, money_scale, *texts)


COUNTRIES: Final = (
    _country(
        "GB", "GBP", "44", 30, 1, "card bank_transfer paypal apple_pay",
        "Alice Oliver Amelia Harry Isla George Ava Noah Freya Arthur Grace Leo Evie Oscar Ruby Priya",
        "Smith Jones Taylor Brown Williams Wilson Evans Thomas Roberts Walker Patel Khan Hughes Green",
    ),
    _country(
        "DE", "EUR", "49", 14, 1, "sepa giropay paypal card",
        "Anna Lukas Lena Jonas Mia Felix Jürgen Sabine Björn Katrin Emilia Paul Käthe Moritz",
        "Müller Schmidt Schneider Fischer Weber Wagner Schäfer Köhler Bauer Jäger Krüger Vogel",
    ),
    _country(
        "SE", "SEK", "46", 10, 10, "trustly swish card",
        "Åsa Erik Elsa Lars Maja Björn Sigrid Nils Alva Göran Ebba Oskar Linnéa Håkan",
        "Andersson Johansson Karlsson Nilsson Eriksson Björk Lindström Åkesson Sjöberg Öberg Holm",
    ),
    _country(
        "FI", "EUR", "358", 7, 1, "trustly card",
        "Aino Eino Helmi Onni Sofia Väinö Emma Leo Päivi Mikko Jukka Hanna Eetu Venla",
        "Korhonen Virtanen Mäkinen Nieminen Mäkelä Hämäläinen Laine Heikkinen Koskinen Järvinen",
    ),
    _country(
        "ES", "EUR", "34", 8, 1, "bizum card paypal",
        "Lucía Hugo Martina Martín María Pablo Sofía Álvaro Carmen Javier Inés Íñigo Noelia Rubén",
        "García Fernández González Rodríguez López Martínez Sánchez Pérez Gómez Núñez Ibáñez",
    ),
    _country(
        "IT", "EUR", "39", 8, 1, "card postepay paypal",
        "Sofia Leonardo Giulia Francesco Aurora Alessandro Chiara Lorenzo Nicolò Elena Matteo Sara",
        "Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Conti De-Luca",
    ),
    _country(
        "MT", "EUR", "356", 4, 1, "card bank_transfer revolut",
        "Bob Maria Joseph Rita Carmen Mario Doris Karmenu Ġorġ Marija Luke Martina",
        "Borg Camilleri Vella Farrugia Zammit Galea Micallef Grech Attard Spiteri Azzopardi",
    ),
    _country(
        "NO", "NOK", "47", 5, 10, "trustly card",
        "Nora Jakob Emma Emil Sofie Håkon Ingrid Bjørn Åse Lars Sølvi Magnus",
        "Hansen Johansen Olsen Larsen Andersen Nilsen Bø Bråten Sørensen Haugen Moen",
    ),
    _country(
        "CA", "CAD", "1", 6, 2, "interac card",
        "Chloe Liam Olivia William Charlotte Benjamin Zoé Logan Émilie Lucas Florence Nathan",
        "Chen Tremblay Singh Roy Gagnon Lee Bouchard Côté Wong MacDonald Campbell Lévesque",
    ),
    _country(
        "NZ", "NZD", "64", 3, 2, "poli card",
        "Aroha Jack Isla Nikau Charlotte Wiremu Mia Hēmi Sophie Tāne Ella Mason",
        "Wilson Ngata Walker Harris Parata Cooper King Tamihere Clarke Robinson",
    ),
    _country(
        "BR", "BRL", "55", 3, 6, "pix card",
        "João Maria Miguel Ana Antônio Helena Davi Júlia Arthur Letícia Cauã Beatriz",
        "Silva Santos Oliveira Souza Pereira Costa Araújo Gonçalves Conceição Brandão",
    ),
    _country(
        "PL", "PLN", "48", 2, 5, "blik card bank_transfer",
        "Zofia Antoni Hanna Jakub Łucja Stanisław Maja Józef Grażyna Michał Zuzanna Wojciech",
        "Nowak Kowalski Wiśniewski Wójcik Kamiński Lewandowski Zieliński Szymański Woźniak Dąbrowski",
    ),
)  # fmt: skip


def make_players(random: Random, count: int, today: date) -> Sequence[Player]:
    """That many players who registered before `today`."""
    weights = [country.weight for country in COUNTRIES]
    width = max(5, len(str(count)))
    return [
        _make_player(random, f"player_{number:0{width}}", number, country, today)
        for number, country in enumerate(random.choices(COUNTRIES, weights, k=count), 1)
    ]


def _make_player(
    random: Random, external_id: str, number: int, country: Country, today: date
) -> Player:
    first_name = random.choice(country.first_names)
    last_name = random.choice(country.last_names).replace("-", " ")
    status = random.choices(list(_STATUSES), list(_STATUSES.values()))[0]
    vip_level = random.choices(range(len(_VIP_WEIGHTS)), _VIP_WEIGHTS)[0]
    appetite = random.lognormvariate(0, 1.1) * (1 + vip_level)
    return Player(
        external_id=external_id,
        first_name=first_name,
        last_name=last_name,
        email=f"{_ascii(first_name)}.{_ascii(last_name)}{number}@{random.choice(_DOMAINS)}",
        phone=f"+{country.calling_code}555{random.randrange(10**6):06}",
        date_of_birth=today - timedelta(_YOUNGEST_DAYS + random.randrange(_AGE_SPREAD_DAYS)),
        country=country,
        status=status,
        registered_on=today - timedelta(1 + random.randrange(_ACCOUNT_AGE_DAYS)),
        vip_level=vip_level,
        appetite=appetite if status == "active" else appetite / 50,
    )


def _ascii(name: str) -> str:
    """The name as it stands in an e-mail address."""
    plain = unicodedata.normalize(
        "NFKD", name.replace("ø", "o").replace("Ł", "L").replace("ł", "l")
    )
    return "".join(letter for letter in plain if letter.isascii() and letter.isalpha()).lower()
