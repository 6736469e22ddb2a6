"""Fictitious identities for DICOM headers: a de-identifier must *not* copy anything of them.

Names are built from syllables, telephone numbers are in the range reserved for fiction, and the hospitals do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from medphantom.core.randomness import stream
from medphantom.phantoms.factors import SimulatedPatient

_STARTS = ("Zor", "Vel", "Qua", "Tym", "Bra", "Ilx", "Jor", "Kev", "Mür", "Nyx", "Øst", "Pru", "Sçe", "Ulf", "Wex")
_MIDDLES = ("va", "ndi", "lo", "the", "rra", "mi", "xo", "ju", "ké", "spa", "nno", "di")
_ENDS = ("th", "ssen", "vic", "rak", "mond", "quist", "lli", "zny", "dottir", "wez", "berg", "nen")
_GIVEN_F = ("Ailunne", "Bervike", "Celdora", "Dymphra", "Elowynne", "Fjaldis", "Gwenorra", "Hestrid")
_GIVEN_M = ("Aldrovan", "Brimo", "Corvast", "Dagnor", "Elbrecht", "Fyodrin", "Gorval", "Hjalte")
_STREETS = ("Glasmoor Lane", "Nettlewharf", "Obersimweg", "Phantom Row", "Tinderbrook Street")
_TOWNS = ("Nowherby", "Simstadt", "Port Imago", "Lower Voxel")
_PLAIN = str.maketrans("üØçé", "uOce")

FIRST_DAY = date(2016, 1, 4)


@dataclass(frozen=True)
class Identity:
    """Fictitious identity of a simulated patient.

    Attributes:
        family: Family name, which may contain letters outside ASCII.
        given: Given name of the patient.
        patient_id: Patient number in the hospital's register.
        national_id: A second number, stored as ``OtherPatientIDs``.
        birth_date: Date of birth of the patient.
        first_study: Date of the first study.
        address: Street and town of residence.
        phone: Telephone number of the family.
        physician: Referring physician, as a DICOM person name.
        operator: Radiographer, as a DICOM person name.
        institution: Name of the hospital.
        station: Name of the scanner on the hospital's network.
        note: Free text that repeats the identity, as people write it.
    """

    family: str
    given: str
    patient_id: str
    national_id: str
    birth_date: date
    first_study: date
    address: str
    phone: str
    physician: str
    operator: str
    institution: str
    station: str
    note: str

    @property
    def person_name(self) -> str:
        """Name in DICOM's person-name format (PN)."""
        return f"{self.family}^{self.given}"

    @property
    def folder_name(self) -> str:
        """Folder name as an archive would choose it, with the identity in it (ASCII)."""
        return f"{self.family}_{self.given}_{self.patient_id}".translate(_PLAIN)

    def secrets(self) -> tuple[str, ...]:
        """Return the strings that must not survive de-identification."""
        return (
            self.family, self.given, self.family.translate(_PLAIN), self.patient_id, self.national_id,
            f"{self.birth_date:%Y%m%d}", self.birth_date.isoformat(), self.address, self.phone,
            self.physician, self.operator, self.institution, self.station,
        )  # fmt: skip


def identity_of(patient: SimulatedPatient) -> Identity:
    """Return the identity of a patient, determined by seed and number (and by sex, age and site, to be consistent)."""
    rng = stream(patient.seed, "identity", patient.number)
    family, physician, operator = (_family(rng) for _ in range(3))
    given = str(rng.choice(_GIVEN_F if patient.sex == "F" else _GIVEN_M))
    first = FIRST_DAY + timedelta(days=int(rng.integers(0, 2200)))
    birth = first - timedelta(days=round(patient.age * 365.25))
    phone = f"+1-202-555-01{int(rng.integers(100)):02d}"
    number = f"{int(rng.integers(10**6, 10**7))}{patient.number:05d}"
    note = f"{given} {family}, born {birth:%d.%m.%Y}, reach the family at {phone}."
    return Identity(
        family=family, given=given, patient_id=number, national_id=f"NX{int(rng.integers(10**8, 10**9))}",
        birth_date=birth, first_study=first,
        address=f"{int(rng.integers(1, 200))} {rng.choice(_STREETS)}, {rng.choice(_TOWNS)}", phone=phone,
        physician=f"{physician}^Odile^^Dr", operator=f"{operator}^Ruben",
        institution=f"{patient.site.title()} Simulation Hospital", station=f"{patient.site.upper()}-XR{number[0]}",
        note=note,
    )  # fmt: skip


def _family(rng: np.random.Generator) -> str:
    return f"{rng.choice(_STARTS)}{rng.choice(_MIDDLES)}{rng.choice(_ENDS)}"
