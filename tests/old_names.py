"""The public names of each module of `ganlab` when its modules lay flat, before they were moved into packages."""

from __future__ import annotations

OLD_NAMES = {
    "alarms": (
        "WON COLLAPSED STOPPED LONG WON_SHARE SPREAD_SHARE SPREAD_OF MOST_CLASSES FEWEST REACH Alarm Alarms "
        "spans spread real_spread asked_gap"
    ),
    "audience": "Audience",
    "bench": (
        "TURN LEAST_ROUNDS IN_STEP NOT_IN_THE_RIVALS Contestant Progress bench contestants stepping in_turns "
        "median_ratio parts_of_a_step ceilings plugin_costs"
    ),
    "beside": "Beside",
    "build": "PLAYERS Training pick_device build capturing penalty_names",
    "by_class": "MEAN name_of scorer_of means",
    "capture": "WARM WATCHED Work Recorder CudaGraphs Rehearsal CapturedTurns rehearse",
    "checkpoint": (
        "PATTERN FORMAT DamagedCheckpoint folder_name list_checkpoints save_checkpoint sizes load_checkpoint "
        "to_bytes from_bytes not_finite"
    ),
    "cli": "app main call",
    "commands.arguments": (
        "Set Device Blocked DatasetName FeaturesName KindName LauncherName ListedName MetricName MetricNames"
    ),
    "commands.authors": "plugins check new",
    "commands.results": "compare evaluate score sample report",
    "commands.training": "run sweep bench",
    "compare": "Entry Row Table collect tables",
    "completion": "Offer offered kinds components components_and_kinds plugins",
    "conditions": "MOST_ROWS Conditions UNCONDITIONAL",
    "config": "load_experiment resolve structured used_files to_table to_toml differences",
    "data": "ImageDataset image_spec to_float as_input to_uint8 Batch Feeder allowed_bytes resident",
    "datasets": "image_size stream_seed check_split downloading",
    "determinism": "CUBLAS REPEATING deterministic",
    "diagnosis": "SECONDS NOT_AGAIN Found owners cause",
    "ending": "status_of explained",
    "errors": (
        "GanlabError UserError ComponentError CannotWrite PluginFailed OutOfMemory NotDeterministic Diverged "
        "Interrupted one_line LONGEST_NAME shown shown_key did_you_mean"
    ),
    "evaluation": (
        "BATCH FLOOR_FORMAT Images Progress evaluating images_from sample sample_grid chosen Scorer Scoring"
    ),
    "files": (
        "places sha256 file_sha256 tensors_sha256 flush_folder writing remove make_room write_whole cached_tensors"
    ),
    "hooks": "MARK Hooks hooks_of specs place is_over",
    "hookspecs": (
        "hookspec hookimpl Part_contra Register Renamed RENAMED register_generators register_discriminators "
        "register_losses register_loss_wrappers register_penalties register_augmentations register_optimizers "
        "register_schedules register_datasets register_features register_metrics register_trackers "
        "register_launchers run_started tick_finished evaluation_finished checkpoint_saved run_finished"
    ),
    "images": "PNG_CHANNELS SMALLEST grid png save_grid",
    "interrupts": "SIGNALS terminable StopRequest",
    "layers": (
        "NormName ConditionalNormName HeadName Judged Layers classes_of norm_layer ConditionalBatchNorm2d "
        "spectrally_normed MinibatchStdDev SelfAttention2d check_attention ClassHead"
    ),
    "levers": (
        "uses_real rows_are_independent looks_at_condition prepare has_convolutions has_quick_dropout "
        "QuickDropout make_capturable"
    ),
    "listing": "described list_plugins",
    "loop": "train take_step",
    "mapped": "WINDOW MappedImages",
    "measuring": (
        "REFERENCE_FORMAT REFERENCE_BATCH MOST_SAMPLES about_features about_reference about_generated "
        "random_state random_subset features_of reference_rows built_features generated_features "
        "generated_rows reference_features cached_reference classifying class_labels_of class_count"
    ),
    "memory": "CGROUPS PROC WORDS is_out_of_memory free_memory FittingBatches",
    "new": "LONGEST write_plugin",
    "opening": (
        "TOLD FREE Request chosen_folder earlier_run open_folder goes_further surroundings_of identity "
        "refuse_other refuse_bent restored"
    ),
    "options": "COMPONENT DEFAULT INTERVAL MOST Interval component components",
    "pages": "OVER_TIME compare_page report_page write_page",
    "phases": "Meters Game Phase two_player_phases Turns logits frozen_parameters decay_of Average",
    "plots": "plot_losses plot_options plot_scores plot_metrics curves_picture points_picture",
    "plugins": "BUNDLED ENTRY_POINT_GROUP Failure Plugins Guard load_plugins sources cause blamed",
    "pretrained": "UNREADABLE read_weights full_precision",
    "protocols": (
        "Direction ImageSpec Places Generator Discriminator NetworkConfig OptimizerConfig Loss TargetedLoss "
        "LossWrapper Step Penalty Augmentation Schedule Dataset DatasetConfig Evaluation Scores Metric "
        "Features FeaturesConfig Tracker TrackerConfig Task Launcher"
    ),
    "ranks": (
        "joined rank world local_world share gathered told gathered_bytes any_of averaged with_others "
        "sum_gradients as_the_first"
    ),
    "registry": "Kind KINDS RegistrationError Origin Component Registry called signature_text",
    "reporting": ("HEADINGS WIDEST as_records as_csv print_tables print_bench cells others shown notes in_words"),
    "rivals": "Parts parts_of Pair AsPictures endless tutorial by_hand Arithmetic captured",
    "rng": "derived_seed seed_everything latents check_truncation global_state set_global_state untouched",
    "runfolder": (
        "CHECKED HALF_WRITTEN now RunFolder is_unstarted to_json record_line read_records versions processor "
        "best_and_final NEEDED read_info"
    ),
    "runs": "Run load_run",
    "sampling": "WALK write_samples latent_walk",
    "schedules": (
        "TERMS HALF_LIFE LOOKED_AT Moving Schedules Target movable with_option placed without_effect scheduled"
    ),
    "schema": "NAME Train Experiment NO_RESULTS NESTED",
    "scoring": "FOLDER DEFAULT rescore Wanted score_images read_npz",
    "session": "SCORED Outcome dry_run run draw_plots",
    "state": "training_state expected_sizes restore_training",
    "statistics": "CONFIDENCE Estimate estimate paired p_value verdicts",
    "streaming": "Index Stream",
    "streams": "lasting",
    "structure": "NAMED MOST_TABLES MOST_VALUES LONGEST_TEXT Problem Problems Structurer",
    "sweeps": "FILE SAYS_NAME MOST_RUNS SweepFile Planned Sweep load_sweep wanted_runs launch",
    "tables": "MAX_BYTES MAX_DEPTH LONGEST_PATH read_toml parse_override override",
    "testing.beside": "TICK SCORE check_tracker LONG WHEN_STARTED check_launcher",
    "testing.checks": (
        "Result CPU Check Fault Inspection raised temporary_folder Lines finite noise check_scalar "
        "compare_with_differences draws same difference"
    ),
    "testing.command": "MARKS check_file",
    "testing.data": "CHANNELS CONDITIONS MANY check_dataset check_features check_metric",
    "testing.game": "Shape LISTED LONGEST_INTERVAL ROUNDS STEPS_A_TURN TinyGame in_turns look_at_game",
    "testing.moved": "TOLD ASTRAY Put look_at_options",
    "testing.networks": "SHAPES BATCHES check_network check_optimizer",
    "testing.schedules": "FIRSTS TOTALS SOME check_schedule",
    "testing.subjects": "CHECKS check unknown_kind Subject conformance loaded_from subjects_of",
    "testing.terms": (
        "BATCHES SPREADS SHAPES OBSERVED PLAYERS check_loss look_at_loss check_loss_wrapper check_penalty "
        "check_augmentation"
    ),
    "testing.tiny": (
        "CLASSES TinyGenerator TinyDiscriminator TinyClassifier PlainLoss TinyLoss TinyWrapper TinyPenalty "
        "TinyAugmentation TinyOptimizer TinyImages TinyFeatures TinyMetric ORIGIN TINY tiny_registry "
        "tiny_options"
    ),
    "tracking": "NOT_FINITE is_score numbers_of",
    "trial": "first_steps",
    "updating": "Player Update step_unless leaves_no_trace",
    "view": "NARROW PLAIN_SECONDS View make_view can_redraw duration PlainView LiveView",
    "watch": "Place Operation Fault Watch unfit",
    "wording": (
        "Option options_of option_in_words component_in_words holds_several in_words alternatives text_of option_docs"
    ),
}
