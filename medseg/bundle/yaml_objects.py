"""The overlays of a bundle that finds objects, to be filled in by `yaml_text`."""

EVALUATE = """\
# Score models/model.pt on the validation cases of the fold, on the grid of their labels.
# Overlay: --config_file "['configs/common.yaml','configs/train.yaml','configs/evaluate.yaml']"
# `medseg evaluate` gives all scores, tables and pictures.
grid_keys: [image]
validate#dataset: {{_target_: Dataset, data: '@val_cases', transform: '@preprocessing'}}
validate#evaluator#network: '@network'
validate#evaluator#inferer: {{_target_: medseg.inference.objects.SourceObjectInferer, inferer: '@inferer'}}
validate#evaluator#key_val_metric: {{{metric}}}
validate#evaluator#val_handlers: ['@checkpoint', {{_target_: StatsHandler, iteration_log: false}}]
initialize: ['$set_up(seed=@seed)']
run: [$@validate#evaluator.run()]
"""

INFERENCE = """\
# Find the objects of every picture of dataset_dir/imagesTs with MONAI alone. Needs common.yaml first.
# `medseg segment` takes network, preprocessing and inferer from here and brings the rest itself.
imports: [$from medseg.data import images_in]
keys: [image]
types: [float32]
datalist: $images_in(@dataset_dir + '/imagesTs', several=False)

dataset: {{_target_: Dataset, data: '$[{{''image'': i}} for i in @datalist]', transform: '@preprocessing'}}
dataloader: {{_target_: DataLoader, dataset: '@dataset', batch_size: 1, num_workers: '@num_workers'}}
# from the tiles to the objects on the grid of the file
object_inferer: {{_target_: medseg.inference.objects.SourceObjectInferer, inferer: '@inferer'}}
postprocessing: {{_target_: medseg.transforms.SaveObjectsd, keys: pred, image_key: image, output_dir: '@output_dir', names: {names}}}
handlers:
- '@checkpoint'
- {{_target_: StatsHandler, iteration_log: false}}
evaluator:
  _target_: SupervisedEvaluator
  device: '@device'
  val_data_loader: '@dataloader'
  network: '@network'
  inferer: '@object_inferer'
  decollate: false            # objects are a list, an image each
  postprocessing: '@postprocessing'
  val_handlers: '@handlers'

initialize: [$monai.utils.set_determinism(seed=123)]
run: [$@evaluator.run()]
"""
