"""Trees of the datasets as their authors, or those whose copies are used most, hand them out: (files, cases found).

Every name is taken from a release, its loader, or its description.
"""

SNOW = "media/jdway/GameSSD/overlapping/test"
SCENES = "0001_001_S6_00100_00060_3200_L", "0002_001_S6_00100_00020_3200_N"

# preset -> layout -> (files, {case: (degraded, clean)})
LAYOUTS: dict[str, dict[str, tuple[str, dict[str, tuple[str | None, str | None]]]]] = {
    "cdd-11": {
        "CDD-11_test": (
            "clear/1.png clear/2.png low/1.png low/2.png rain_haze/2.png",
            {"low/1": ("1.png", "1.png"), "low/2": ("2.png", "2.png"), "haze_rain/2": ("2.png", "2.png")},
        )
    },
    "composites": {"photographs": ("a.png", {})},
    "rain100l": {
        "one folder": (
            "rain-001.png rain-002.png norain-001.png norain-002.png",
            {
                "Rain100L/rain-001": ("rain-001.png", "norain-001.png"),
                "Rain100L/rain-002": ("rain-002.png", "norain-002.png"),
            },
        ),
        "JORDER, first release": (
            "rain_data_test_Light/norain/norain-001.png rain_data_test_Light/rain/X2/norain-001x2.png "
            "rain_data_train_Light/norain/norain-1.png rain_data_train_Light/rain/norain-1x2.png",
            {"Rain100L/rain_data_test_Light/norain-001x2": ("norain-001x2.png", "norain-001.png")},
        ),
        "AirNet": ("rainy/rain-001.png gt/norain-001.png", {"Rain100L/rain-001": ("rain-001.png", "norain-001.png")}),
    },
    "rain100h": {
        "PReNet": (
            "norain-001.png norain-002.png rainy/rain-001.png rainy/rain-002.png",
            {
                "Rain100H/rain-001": ("rain-001.png", "norain-001.png"),
                "Rain100H/rain-002": ("rain-002.png", "norain-002.png"),
            },
        ),
        "Restormer": ("input/1.png target/1.png", {"Rain100H/1": ("1.png", "1.png")}),
    },
    "rain13k": {
        "Restormer": (
            "train/Rain13K/input/1.png train/Rain13K/target/1.png test/Test100/input/1.png test/Test100/target/1.png "
            "test/Rain100L/input/1.png test/Rain100L/target/1.png",
            {"Rain100L/1": ("1.png", "1.png"), "Test100/1": ("1.png", "1.png")},
        ),
        "its test folder": (
            "Test100/input/1.png Test100/target/1.png Rain100H/input/1.png Rain100H/target/1.png",
            {"Rain100H/1": ("1.png", "1.png"), "Test100/1": ("1.png", "1.png")},
        ),
    },
    "rain1400": {
        "rainy_image_dataset": (
            "training/rainy_image/1_1.jpg training/ground_truth/1.jpg "
            "testing/rainy_image/901_1.jpg testing/rainy_image/901_14.jpg testing/ground_truth/901.jpg",
            {"Rain1400/901_1": ("901_1.jpg", "901.jpg"), "Rain1400/901_14": ("901_14.jpg", "901.jpg")},
        )
    },
    "raindrop": {
        "DeRaindrop": (
            "train/data/0_rain.png train/gt/0_clean.png test_a/data/0_rain.png test_a/gt/0_clean.png "
            "test_b/data/1_rain.jpg test_b/gt/1_clean.jpg",
            {"RainDrop/0_rain": ("0_rain.png", "0_clean.png")},
        )
    },
    "spa-data": {
        "SPANet": (
            "Testing/real_test_1000/rain/000.png Testing/real_test_1000/gt/000gt.png",
            {"SPA-Data/Testing/real_test_1000/000": ("000.png", "000gt.png")},
        )
    },
    "lol": {
        "LOLdataset": (
            "our485/low/7.png our485/high/7.png eval15/low/1.png eval15/high/1.png",
            {"LOL/1": ("1.png", "1.png")},
        )
    },
    "lol-v2-real": {
        "LOL-v2": (
            "Real_captured/Train/Low/low00001.png Real_captured/Train/Normal/normal00001.png "
            "Real_captured/Test/Low/low00690.png Real_captured/Test/Normal/normal00690.png "
            "Synthetic/Test/Low/r00816405t.png Synthetic/Test/Normal/r00816405t.png",
            {"LOL-v2-real/Test/low00690": ("low00690.png", "normal00690.png")},
        )
    },
    "lol-v2-synthetic": {
        "LOL-v2": (
            "Synthetic/Train/Low/r000da54ft.png Synthetic/Train/Normal/r000da54ft.png "
            "Synthetic/Test/Low/r00816405t.png Synthetic/Test/Normal/r00816405t.png",
            {"LOL-v2-synthetic/Test/r00816405t": ("r00816405t.png", "r00816405t.png")},
        )
    },
    "sots": {
        "RESIDE": (
            "indoor/hazy/1400_1.png indoor/gt/1400.png outdoor/hazy/0001_0.8_0.2.jpg outdoor/gt/0001.png",
            {"outdoor/0001_0.8_0.2": ("0001_0.8_0.2.jpg", "0001.png")},
        ),
        "indoor": (
            "nyuhaze500/hazy/1400_1.png nyuhaze500/hazy/1400_10.png nyuhaze500/gt/1400.png",
            {"nyuhaze500/1400_1": ("1400_1.png", "1400.png"), "nyuhaze500/1400_10": ("1400_10.png", "1400.png")},
        ),
        "ITS": (
            "hazy/1_1_0.90179.png clear/1.png trans/1_1.png",
            {"ITS/1_1_0.90179": ("1_1_0.90179.png", "1.png")},
        ),
    },
    "gopro": {
        "GOPRO_Large": (
            "train/GOPR0372_07_00/blur/000047.png train/GOPR0372_07_00/sharp/000047.png "
            "test/GOPR0384_11_00/blur/000001.png test/GOPR0384_11_00/blur_gamma/000001.png "
            "test/GOPR0384_11_00/sharp/000001.png test/GOPR0385_11_01/blur/003011.png "
            "test/GOPR0385_11_01/blur_gamma/003011.png test/GOPR0385_11_01/sharp/003011.png",
            {
                "GoPro/GOPR0384_11_00/000001": ("000001.png", "000001.png"),
                "GoPro/GOPR0385_11_01/003011": ("003011.png", "003011.png"),
            },
        )
    },
    "snow100k": {
        "test set": (
            f"{SNOW}/Snow100K-L/synthetic/a.jpg {SNOW}/Snow100K-L/gt/a.jpg {SNOW}/Snow100K-L/mask/a.jpg "
            f"{SNOW}/Snow100K-S/synthetic/a.jpg {SNOW}/Snow100K-S/gt/a.jpg all/synthetic/b.jpg all/gt/b.jpg",
            {"Snow100K-L/a": ("a.jpg", "a.jpg"), "Snow100K-S/a": ("a.jpg", "a.jpg")},
        )
    },
    "outdoor-rain": {
        "HeavyRainRemoval": (
            "Test1/in/im_0001_s80_a04.png Test1/in/im_0001_s90_a05.png Test1/gt/im_0001.png",
            {
                "Outdoor-Rain/Test1/im_0001_s80_a04": ("im_0001_s80_a04.png", "im_0001.png"),
                "Outdoor-Rain/Test1/im_0001_s90_a05": ("im_0001_s90_a05.png", "im_0001.png"),
            },
        )
    },
    "weatherbench": {
        "by weather": (
            "haze/train/input/7.jpg haze/train/target/7.jpg haze/test/input/1.jpg haze/test/target/1.jpg "
            "rain/test/input/1.jpg rain/test/target/1.jpg",
            {"haze/1": ("1.jpg", "1.jpg"), "rain/1": ("1.jpg", "1.jpg")},
        ),
        "by split": (
            "train/haze/input/7.jpg train/haze/target/7.jpg test/haze/input/1.jpg test/haze/target/1.jpg",
            {"haze/1": ("1.jpg", "1.jpg")},
        ),
    },
    "dense-haze": {
        "Dense_Haze_NTIRE19": (
            "hazy/01_hazy.png GT/01_GT.png",
            {"Dense-Haze/01_hazy": ("01_hazy.png", "01_GT.png")},
        )
    },
    "nh-haze": {
        "NH-HAZE": (
            "01_hazy.png 01_GT.png 02_hazy.png 02_GT.png",
            {"NH-HAZE/01_hazy": ("01_hazy.png", "01_GT.png"), "NH-HAZE/02_hazy": ("02_hazy.png", "02_GT.png")},
        )
    },
    "o-haze": {
        "archive": (
            "hazy/01_outdoor_hazy.jpg GT/01_outdoor_GT.jpg",
            {"O-HAZE/01_outdoor_hazy": ("01_outdoor_hazy.jpg", "01_outdoor_GT.jpg")},
        )
    },
    "i-haze": {
        "archive": (
            "hazy/01_indoor_hazy.jpg GT/01_indoor_GT.jpg",
            {"I-HAZE/01_indoor_hazy": ("01_indoor_hazy.jpg", "01_indoor_GT.jpg")},
        )
    },
    "sidd": {
        "SIDD_Medium_Srgb": (
            f"Data/{SCENES[0]}/0001_NOISY_SRGB_010.PNG Data/{SCENES[0]}/0001_NOISY_SRGB_011.PNG "
            f"Data/{SCENES[0]}/0001_GT_SRGB_010.PNG Data/{SCENES[0]}/0001_GT_SRGB_011.PNG "
            f"Data/{SCENES[1]}/0002_NOISY_SRGB_010.PNG Data/{SCENES[1]}/0002_GT_SRGB_010.PNG",
            {
                f"SIDD/Data/{scene}/{number}_NOISY_SRGB_{shot}": (
                    f"{number}_NOISY_SRGB_{shot}.PNG",
                    f"{number}_GT_SRGB_{shot}.PNG",
                )
                for scene, number, shot in (
                    (SCENES[0], "0001", "010"),
                    (SCENES[0], "0001", "011"),
                    (SCENES[1], "0002", "010"),
                )
            },
        ),
        "Restormer, validation": (
            "input_crops/0_0.png input_crops/0_1.png target_crops/0_0.png target_crops/0_1.png",
            {"SIDD/0_0": ("0_0.png", "0_0.png"), "SIDD/0_1": ("0_1.png", "0_1.png")},
        ),
    },
    "lhp": {
        "LHP-Rain": (
            "train/input/1.png train/gt/1.png val/input/2.png val/gt/2.png test/input/3.png test/gt/3.png",
            {"LHP/test/3": ("3.png", "3.png")},
        )
    },
    "realsnow": {
        "WGWS-Net": (
            "training/input/1.png training/gt/1.png testing/input/2.png testing/gt/2.png",
            {"RealSnow/testing/2": ("2.png", "2.png")},
        )
    },
    "dpdd": {
        "dd_dp_dataset_png": (
            "train_c/source/1P0A0001.png train_c/target/1P0A0002.png val_c/source/1P0A0005.png "
            "val_c/target/1P0A0006.png test_c/source/1P0A0917.png test_c/target/1P0A0918.png "
            "test_c/source/1P0A0984.png test_c/target/1P0A0983.png test_l/source/1P0A0917_L.png "
            "test_r/source/1P0A0917_R.png",
            {
                "DPDD/1P0A0917": ("1P0A0917.png", "1P0A0918.png"),
                "DPDD/1P0A0984": ("1P0A0984.png", "1P0A0983.png"),
            },
        ),
        "Restormer": (
            "test/inputC/1P0A0917.png test/inputL/1P0A0917.png test/inputR/1P0A0917.png test/target/1P0A0917.png",
            {"DPDD/1P0A0917": ("1P0A0917.png", "1P0A0917.png")},
        ),
    },
    "live1-jpeg10": {"images": ("a.png b.png", {"jpeg10/a": (None, "a.png"), "jpeg10/b": (None, "b.png")})},
    "bsd500-jpeg10": {
        "BSDS500": (
            "data/images/test/100007.jpg data/images/test/2018.jpg",
            {
                "jpeg10/data/images/test/100007": (None, "100007.jpg"),
                "jpeg10/data/images/test/2018": (None, "2018.jpg"),
            },
        )
    },
    "rtts": {
        "RESIDE": (
            "JPEGImages/AM_Bing_211.png JPEGImages/YT_Bing_010.png",
            {
                "RTTS/JPEGImages/AM_Bing_211": ("AM_Bing_211.png", None),
                "RTTS/JPEGImages/YT_Bing_010": ("YT_Bing_010.png", None),
            },
        )
    },
    "three-task": {
        "side by side": (
            "SOTS/outdoor/hazy/1_1.png SOTS/outdoor/gt/1.png Rain100L/input/1.png Rain100L/gt/1.png CBSD68/1.png",
            {
                "SOTS/1_1": ("1_1.png", "1.png"),
                "Rain100L/1": ("1.png", "1.png"),
                "noise15/1": (None, "1.png"),
                "noise25/1": (None, "1.png"),
                "noise50/1": (None, "1.png"),
            },
        )
    },
    "five-task": {
        "AirNet and PromptIR": (
            "SOTS/hazy/1_1.png SOTS/gt/1.png derain/Rain100L/input/1.png derain/Rain100L/target/1.png denoise/1.png "
            "GoPro/test/A/blur/1.png GoPro/test/A/sharp/1.png LOL/low/1.png LOL/high/1.png",
            {
                "SOTS/1_1": ("1_1.png", "1.png"),
                "Rain100L/1": ("1.png", "1.png"),
                "noise25/1": (None, "1.png"),
                "GoPro/A/1": ("1.png", "1.png"),
                "LOL/1": ("1.png", "1.png"),
            },
        )
    },
}
