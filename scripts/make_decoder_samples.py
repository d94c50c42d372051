"""Write the small DICOM images on which `medseg doctor` tries every decoder.

Run once by a developer: python scripts/make_decoder_samples.py
"""

import base64
import io
import json
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom.uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

TARGET = Path(__file__).parents[1] / "medseg" / "workflows" / "decoder_samples.json"
SIDE = 24


def picture(bits: int) -> np.ndarray:
    """Return a ramp with a bright square: smooth enough for lossy JPEG."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ramp = (rows * 3 + columns * 2) * (1 << bits) // 256
    ramp[6:14, 8:16] += (1 << bits) // 4
    return ramp.astype(np.uint8 if bits == 8 else np.uint16)


def dataset(syntax: str, bits: int) -> Dataset:
    """Return a digital radiograph without any patient."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uids.UID(syntax)
    ds.SOPClassUID = uids.DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.SOPInstanceUID = f"2.25.7{syntax[-3:].replace('.', '')}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.71", "2.25.72"
    ds.Modality, ds.ImageType, ds.PixelSpacing = "DX", ["ORIGINAL", "PRIMARY"], [0.2, 0.2]
    ds.Rows = ds.Columns = SIDE
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = 8 if bits == 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
    return ds


def native(ds: Dataset, image: np.ndarray) -> bytes:
    """Store the pixels without compression of their own."""
    big = ds.file_meta.TransferSyntaxUID == uids.ExplicitVRBigEndian
    ds.PixelData = image.astype(image.dtype.newbyteorder(">" if big else "<")).tobytes()
    ds["PixelData"].VR = "OB" if image.dtype == np.uint8 else "OW"
    return written(ds)


def encapsulated(ds: Dataset, frame: bytes) -> bytes:
    """Store one compressed frame."""
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    return written(ds)


def written(ds: Dataset) -> bytes:
    """Return the bytes of a DICOM file."""
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def packed(raw: bytes) -> str:
    """Return bytes as compressed text."""
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def samples() -> list[dict[str, object]]:
    """Encode the picture in every transfer syntax."""
    wide, narrow = picture(12), picture(8)
    jpegls = imagecodecs.jpegls_encode
    frames = [
        ("JPEG baseline", uids.JPEGBaseline8Bit, 8, imagecodecs.jpeg8_encode(narrow, level=95), 6),
        (
            "JPEG extended, 12 bit",
            uids.JPEGExtended12Bit,
            12,
            imagecodecs.jpeg_encode(wide, level=95, bitspersample=12),
            8,
        ),
        ("JPEG lossless", uids.JPEGLossless, 12, imagecodecs.ljpeg_encode(wide), 0),
        ("JPEG lossless, first order", uids.JPEGLosslessSV1, 12, imagecodecs.ljpeg_encode(wide), 0),
        ("JPEG-LS lossless", uids.JPEGLSLossless, 12, jpegls(wide), 0),
        ("JPEG-LS near lossless", uids.JPEGLSNearLossless, 12, jpegls(wide, level=2), 2),
        (
            "JPEG 2000 lossless",
            uids.JPEG2000Lossless,
            12,
            imagecodecs.jpeg2k_encode(wide, codecformat="j2k", level=0, bitspersample=12),
            0,
        ),
        (
            "JPEG 2000",
            uids.JPEG2000,
            12,
            imagecodecs.jpeg2k_encode(wide, codecformat="j2k", level=60, bitspersample=12),
            20,
        ),
        ("HTJ2K lossless", uids.HTJ2KLossless, 12, imagecodecs.htj2k_encode(wide), 0),
    ]
    plain = [
        ("implicit little endian", uids.ImplicitVRLittleEndian),
        ("explicit little endian", uids.ExplicitVRLittleEndian),
        ("explicit big endian", uids.ExplicitVRBigEndian),
        ("deflated", uids.DeflatedExplicitVRLittleEndian),
    ]
    made = [(name, uid, 12, native(dataset(uid, 12), wide), 0) for name, uid in plain]
    rle = RLELosslessEncoder.encode(
        wide, rows=SIDE, columns=SIDE, samples_per_pixel=1, bits_allocated=16, bits_stored=12,
        photometric_interpretation="MONOCHROME2", pixel_representation=0, number_of_frames=1,
    )  # fmt: skip
    made.append(("RLE", uids.RLELossless, 12, encapsulated(dataset(uids.RLELossless, 12), rle), 0))
    made += [
        (name, uid, bits, encapsulated(dataset(uid, bits), frame), tolerance)
        for name, uid, bits, frame, tolerance in frames
    ]
    return [
        {
            "name": name,
            "transfer_syntax_uid": str(uid),
            "bits": bits,
            "tolerance": tolerance,
            "dicom": packed(raw),
        }
        for name, uid, bits, raw, tolerance in made
    ]


def main() -> None:
    """Write the samples and the pictures that they must decode to."""
    pictures = {str(bits): packed(picture(bits).astype("<u2").tobytes()) for bits in (8, 12)}
    document = {"side": SIDE, "pictures": pictures, "samples": samples()}
    TARGET.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{TARGET}: {len(document['samples'])} samples, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
