"""Build `tcga_brca.csv`, and the packaged table of TCGA source sites, from three public lists.

    python data_manifests/build_tcga_brca.py GDC_MANIFEST.txt tissueSourceSite.tsv tcga_brca_tp53.csv

The lists: a GDC download manifest of the diagnostic slides of TCGA-BRCA; the GDC code table of tissue source
sites (gdc.cancer.gov/resources-tcga-users/tcga-code-tables); TP53 status by case (columns case_id, tp53).
Centres are named as in the table, less the spaces around some. A case without TP53 status is `unknown`.
"""

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

from pipeline.cohort.gdc import SITES_FILE, rows_from_gdc  # noqa: E402
from pipeline.cohort.manifest.read import write_manifest  # noqa: E402
from pipeline.disk.tables import read_table, refuse, write_table  # noqa: E402


def write_source_sites(sites_tsv: Path, out: Path) -> None:
    """Write the code table (TSV with `TSS Code` and `Source Site`) as CSV with the columns code, center."""
    records, problems = read_table(sites_tsv, ("TSS Code", "Source Site"), "\t")
    refuse(sites_tsv, problems)
    sites = [(site["TSS Code"], site["Source Site"].strip()) for _, site in records]
    write_table(out, ("code", "center"), sorted(sites))


def write_tcga_brca(gdc_manifest: Path, tp53_csv: Path, out: Path) -> None:
    """Write the manifest: all that the GDC list gives, and the label tp53 (mutated, wild-type, unknown)."""
    records, problems = read_table(tp53_csv, ("case_id", "tp53"), ",")
    refuse(tp53_csv, problems)
    tp53 = {record["case_id"]: record["tp53"] for _, record in records}
    rows = rows_from_gdc(gdc_manifest)
    write_manifest(out, [replace(r, labels={**r.labels, "tp53": tp53.get(r.case_id) or "unknown"}) for r in rows])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    gdc_manifest, sites_tsv, tp53_csv = map(Path, sys.argv[1:])
    write_source_sites(sites_tsv, ROOT / "pipeline" / "data" / SITES_FILE)
    write_tcga_brca(gdc_manifest, tp53_csv, ROOT / "data_manifests" / "tcga_brca.csv")
