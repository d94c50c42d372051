"""DICOM folder to array and to .nii.gz at 512x512x400, against the peers, in one run.

    python scripts/bench/dicom.py [--folder DIR] [--rounds 3] [--slices 400]

Makes three series (uncompressed, JPEG 2000, RLE) once, then runs every method in turn, each in a
process of its own; the clock starts after its imports. Writes scripts/bench/results/dicom.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SERIES = ("native", "jpeg2000", "rle")
TO_ARRAY = ("medseg", "simpleitk", "monai-pydicom", "monai-itk")
TO_NIFTI = ("medseg-nifti", "dcm2niix-nifti", "simpleitk-nifti")


def synthetic_ct(slices: int) -> np.ndarray:
    """Return a (slices, 512, 512) int16 volume with a body, organs and noise; HU."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    volume = np.empty((slices, 512, 512), np.int16)
    for k, z in enumerate(np.linspace(-1, 1, slices)):
        image = np.full((512, 512), -1000.0)
        image[(x / 0.8) ** 2 + (y / 0.6) ** 2 < 1] = -90
        image[(x / 0.74) ** 2 + (y / 0.54) ** 2 < 1] = 45
        image[((x + 0.3) / 0.3) ** 2 + (y / 0.3) ** 2 + (z / 0.6) ** 2 < 1] = 105
        image[(x / 0.1) ** 2 + ((y - 0.35) / 0.1) ** 2 < 1] = 600
        volume[k] = image + rng.normal(0, 12, image.shape)
    return volume


def make(folder: Path, slices: int) -> None:
    """Write the three series unless they are there."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import (
        CTImageStorage,
        ExplicitVRLittleEndian,
        JPEG2000Lossless,
        RLELossless,
        generate_uid,
    )

    if all(len(list((folder / name).glob("*.dcm"))) == slices for name in SERIES):
        return
    volume = synthetic_ct(slices)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for name in SERIES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, k in enumerate(np.random.default_rng(1).permutation(slices)):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID, dataset.Modality, dataset.PatientID = frame, "CT", "BENCH"
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20260101"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "101010"
        dataset.Manufacturer, dataset.SeriesNumber = "BENCH", 1
        dataset.InstanceNumber, dataset.AcquisitionNumber = int(k) + 1, 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient = [-200.0, -200.0, float(k)]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.78125, 0.78125], 1.0
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 512, 512, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
        dataset.PixelData = volume[k].tobytes()
        dataset["PixelData"].VR = "OW"
        native = folder / "native" / f"I{number:04d}.dcm"
        dataset.save_as(native, enforce_file_format=True)
        for name, syntax in (("jpeg2000", JPEG2000Lossless), ("rle", RLELossless)):
            copy = dcmread(native)
            copy.compress(syntax, generate_instance_uid=False)
            copy.save_as(folder / name / native.name, enforce_file_format=True)


def run_one(method: str, series: Path, scratch: Path) -> None:
    """Do one method once and print its measurement."""
    sys.path.insert(0, str(HERE))
    from measure import report

    out = scratch / f"{method}.nii.gz"
    if method.startswith("medseg"):
        from medseg.io.dicom import find_series, read_volume
        from medseg.io.nifti import write_nifti_image

        def work():
            volume = read_volume(find_series(series).series[0].volumes[0])
            if method == "medseg-nifti":
                write_nifti_image(volume, out)
            return volume

    elif method.startswith("simpleitk"):
        import SimpleITK as sitk

        def work():
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
            image = reader.Execute()
            if method == "simpleitk-nifti":
                sitk.WriteImage(image, str(out))
            return image

    elif method.startswith("monai"):
        from monai.data import ITKReader, PydicomReader
        from monai.transforms import LoadImage

        load = LoadImage(PydicomReader() if method == "monai-pydicom" else ITKReader())

        def work():
            return load(str(series))

    else:
        import dcm2niix

        command = [dcm2niix.bin, "-z", "y", "-b", "n", "-f", "out", "-w", "1", "-o", str(scratch)]

        def work():
            return subprocess.run([*command, str(series)], check=True, capture_output=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report(work, children=method.startswith("dcm2niix"))


def run_all(folder: Path, rounds: int, slices: int) -> dict:
    """Measure every method on every series."""
    sys.path.insert(0, str(HERE))
    from measure import machine, measure

    results: dict = {"machine": machine(), "shape": [512, 512, slices], "rounds": rounds}
    with tempfile.TemporaryDirectory() as scratch:
        for name in SERIES:
            methods = TO_ARRAY + TO_NIFTI if name == "native" else TO_ARRAY[:2]
            base = [sys.executable, str(HERE / "dicom.py"), "--folder", str(folder / name)]
            commands = {m: [*base, "--one", m, "--scratch", scratch] for m in methods}
            table = measure(commands, rounds)
            for method, row in table.items():
                own = "medseg-nifti" if method.endswith("-nifti") else "medseg"
                row["times_medseg"] = row["median_s"] / table[own]["median_s"]
            array_mb = slices * 512 * 512 * 2 / 1e6
            table["medseg"]["added_over_array"] = table["medseg"]["added_mb"] / array_mb
            results[name] = table
    return results


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "medseg-bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, arguments.folder, arguments.scratch)
        return
    make(arguments.folder, arguments.slices)
    results = run_all(arguments.folder, arguments.rounds, arguments.slices)
    target = HERE / "results" / "dicom.json"
    target.write_text(json.dumps(results, indent=1) + "\n")
    for name in SERIES:
        print(f"\n{name}")
        for method, row in results[name].items():
            times = f"{row['times_medseg']:.1f} x medseg's time"
            memory = f"added {row['added_mb']:.0f} MB, peak {row['peak_mb']:.0f} MB"
            print(f"  {method:16s} {row['median_s']:7.2f} s  {times:24s} {memory}")


if __name__ == "__main__":
    main()
